"""Every source of clips goes through ``prepare``, ``fit`` and ``test``, and ``prepare`` lists what is missing."""

import csv
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from bsa_lightning.cli import fit  # noqa: F401 - its log handlers must not hold a captured stream
from bsa_lightning.cli.main import main

ROOT = Path(__file__).parent.parent.parent
NUM_CLIPS = 6
CAPTIONS = ["A beep", "A low hum"]


def sound(number):
    content = io.BytesIO()
    wave = 0.3 * np.sin((0.05 + 0.02 * number) * np.arange(8000))
    soundfile.write(content, wave, 16_000, format="WAV")
    return content.getvalue()


def name(number):
    """The same names in two folders."""
    return f"{'ab'[number % 2]}/{number // 2}.wav"


def write_sounds(folder):
    for number in range(NUM_CLIPS):
        (folder / name(number)).parent.mkdir(parents=True, exist_ok=True)
        (folder / name(number)).write_bytes(sound(number))


def captioned_folder(folder):
    write_sounds(folder / "clips")
    for number in range(NUM_CLIPS):
        (folder / "clips" / name(number)).with_suffix(".txt").write_text("\n".join(CAPTIONS))
    return "CaptionedFolder", {"folder": str(folder / "clips")}


def csv_list(folder):
    write_sounds(folder / "sounds")
    lines = ["file,text", *(f"sounds/{name(number)},A beep" for number in range(NUM_CLIPS))]
    (folder / "clips.csv").write_text("\n".join(lines))
    return "ClipList", {"file": str(folder / "clips.csv"), "columns": {"audio": "file", "captions": "text"}}


def json_list(folder):
    write_sounds(folder / "sounds")
    lines = [json.dumps({"audio": name(number), "caption": CAPTIONS}) for number in range(NUM_CLIPS)]
    (folder / "clips.jsonl").write_text("\n".join(lines))
    return "ClipList", {"file": str(folder / "clips.jsonl"), "root": str(folder / "sounds")}


def tar_files(folder):
    for shard in range(2):
        with tarfile.open(folder / f"clips-{shard}.tar", "w") as file:
            for number in range(3):
                for ending, content in (("wav", sound(number)), ("json", json.dumps({"text": CAPTIONS}).encode())):
                    member = tarfile.TarInfo(f"{number}.{ending}")
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
    return "WebDataset", {"shards": str(folder / "clips-{0..1}.tar"), "caption_member": "json.text"}


def data_set(folder, **settings):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra datasets is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra datasets is not installed")
    pytest.importorskip("datasets", reason="the extra datasets is not installed")
    sounds = [{"bytes": sound(number), "path": None} for number in range(NUM_CLIPS)]
    (folder / "set").mkdir()
    rows = {"audio": sounds, "caption": ["A beep"] * NUM_CLIPS}
    parquet.write_table(pyarrow.Table.from_pydict(rows), folder / "set" / "train.parquet")
    return "HuggingFaceDataset", {"path": str(folder / "set"), **settings}


def streamed_data_set(folder):
    return data_set(folder, streaming=True)


SOURCES = [captioned_folder, csv_list, json_list, tar_files, data_set, streamed_data_set]


@pytest.fixture
def lightning(tmp_path, monkeypatch, capsys):
    """Runs a command in the folder of the test; gives what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lightning", *words])
        code, printed = main(), capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_prepare_fit_and_test(source, tmp_path, lightning):
    kind, settings = source(tmp_path)
    clips = {"class_path": kind, "init_args": settings}
    (tmp_path / "prepare.yaml").write_text(yaml.safe_dump({"clips": clips, "out": "store", "accelerator": "cpu"}))
    printed = lightning("prepare", "--config", "prepare.yaml")
    assert printed.endswith(f"{NUM_CLIPS} clips prepared\n")
    store = {"folder": "store", "clips": clips}
    run = {
        "model": {"init_args": {"plan": {"start_steps": 2, "end_steps": 1, "updates": 2}}},
        "data": {"init_args": {"train": store, "val": store, "batch_size": 2}},
        "trainer": {"accelerator": "cpu", "log_every_n_steps": 1},
        "scoring": {
            "clips": clips,
            "num_captions": 2,
            "seeds": [0],
            "rivals": [],
            "during_fit": False,
            "embeddings": [{"class_path": "LogMelStatistics"}],
        },
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    configs = ["--config", str(ROOT / "configs" / "demo.yaml"), "--config", "run.yaml", "--run", "run"]
    lightning("fit", *configs, "--wandb", "disabled")
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert len([row for row in csv.DictReader(file) if row["train/loss"]]) == 2
    lightning("test", "--config", "run/config.yaml", "--wandb", "disabled")
    assert (tmp_path / "run" / "scores.csv").read_text().count("\n") >= 2


@pytest.mark.parametrize("max_missing", ["0.05", "0.5"])
def test_what_is_missing_is_listed_whether_or_not_the_rest_is_prepared(
    tmp_path, teacher_folder, monkeypatch, capsys, max_missing
):
    _, settings = json_list(tmp_path)
    for number in (1, 4):
        (tmp_path / "sounds" / name(number)).unlink()
    words = ["prepare", "--clips", "ClipList", "--clips.max_missing", max_missing, "--out", str(tmp_path / "store")]
    words += [word for key, value in settings.items() for word in (f"--clips.{key}", value)]
    words += ["--teacher", str(teacher_folder), "--list_missing", str(tmp_path / "new" / "missing.txt")]
    monkeypatch.setattr(sys, "argv", ["lightning", *words])
    code = main()
    printed = capsys.readouterr()
    assert (tmp_path / "new" / "missing.txt").read_text() == f"{name(1)}\n{name(4)}\n"
    if max_missing == "0.05":
        assert code == 2
        assert "lists 6 clips of which 2 are missing on disk (b/0.wav, a/2.wav), more than max_missing" in printed.err
        assert not (tmp_path / "store").exists()
    else:
        assert code == 0
        assert printed.out.endswith("4 clips prepared\n")
