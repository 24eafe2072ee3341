"""``lightning distill``: from a model and captions to a student, its scores and a page."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import bsa_lightning as bsa
from bsa_lightning.cli import captions_alone
from bsa_lightning.cli.ladder import default_rate, own_guidance
from bsa_lightning.cli.main import main
from bsa_lightning.common.errors import StoppedError, UserError
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.models.loading import read_sampling
from bsa_lightning.models.tango.family import TangoFamily

QUICK = "{scoring.num_captions: 4, scoring.seeds: [0, 1], scoring.rivals: [], trainer.enable_progress_bar: false}"
WORDS = ["--steps", "8", "4", "--updates", "1", "--batch-size", "4", "--latents-per-caption", "1", "--settings", QUICK]


def lightning(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["lightning", *words])
    return main()


@pytest.fixture
def captions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captions.txt").write_text("".join(f"rain {i}\n" for i in range(20)))


@pytest.mark.parametrize(
    ("known", "mode", "settings"),
    [
        ({"guidance": "outside", "guidance_scale": 2.5}, "Baked", (2.5, None)),
        ({"guidance": "baked", "guidance_scale": 2.5}, "Baked", (1.0, None)),
        ({"guidance": "embedded", "guidance_scale": 2.5, "guidance_range": [2.0, 4.0]}, "Embedded", (2.5, (2.0, 4.0))),
    ],
)
def test_guidance_is_that_of_the_teacher_if_none_is_named(known, mode, settings, teacher_folder, tmp_path):
    teacher = shutil.copytree(teacher_folder, tmp_path / "teacher")
    (teacher / "provenance.json").write_text(json.dumps(known))
    guidance = own_guidance(teacher)
    assert (type(guidance).__name__, (guidance.scale, guidance.range)) == (mode, settings)
    guidance.check_teacher("teacher", read_sampling(teacher))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("captions")
def test_captions_become_a_student_a_table_and_a_page(teacher_folder, tmp_path, monkeypatch, capsys):
    words = ["distill", str(teacher_folder), "--captions", "captions.txt", "--out", "mine", *WORDS]
    assert lightning(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "sampling 18 latents to train on: 8 steps, guidance 2" in said
    assert "KAD log-mel" in said
    assert "page to listen to: mine/report/index.html" in said
    assert 'DiffusionPipeline.from_pretrained("mine/student", custom_pipeline="pipeline"' in said
    assert (tmp_path / "mine" / "report" / "index.html").is_file()
    umask = os.umask(0o077)
    os.umask(umask)
    for path in (tmp_path / "mine").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path
    sound = bsa.load_model(tmp_path / "mine" / "student")(["rain"])
    assert np.isfinite(sound.audios).all()

    data = yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())["data"]["init_args"]
    stores = [LatentReader(data[part]["folder"]) for part in ("train", "val")]
    train, test = ({caption for i in range(len(store)) for caption in store[i].captions} for store in stores)
    assert (len(train), len(test), train & test) == (18, 2, set())
    assert len(stores[1]) == 48

    scores = (tmp_path / "mine" / "scores.csv").read_bytes()
    assert lightning(monkeypatch, *words) == 0
    assert "mine was finished before" in capsys.readouterr().out
    assert (tmp_path / "mine" / "scores.csv").read_bytes() == scores
    settings = yaml.safe_load(QUICK) | {"data.batch_size": 4}
    same = {"captions": "captions.txt", "steps": (8, 4), "updates": 1, "latents_per_caption": 1, "settings": settings}
    assert bsa.distill(teacher_folder, out="mine", **same).folder == Path("mine/student")  # no setting differs
    assert lightning(monkeypatch, "fit", "--config", "mine/config.yaml", "--run", "again") == 0
    network = "rounds/1-4steps/unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "again" / network).read_bytes() == (tmp_path / "mine" / network).read_bytes()

    capsys.readouterr()
    (tmp_path / "captions.txt").write_text("a dog barks\n" * 2 + "".join(f"birds {i}\n" for i in range(30)))
    assert lightning(monkeypatch, *words) == 2
    assert "out is mine, a run of other captions or of latents that were sampled otherwise" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("captions")
def test_a_fit_that_a_limit_has_stopped_is_not_taken_for_finished(teacher_folder, tmp_path, monkeypatch, capsys):
    """Two of three rounds."""
    words = ["distill", str(teacher_folder), "--captions", "captions.txt", "--out", "mine", "--steps", "8", "1"]
    words += WORDS[3:-1]
    assert lightning(monkeypatch, *words, QUICK.replace("{", "{trainer.max_steps: 2, ")) == 2
    text = "the training in mine ended before its student of 1 steps was finished, since a limit such as trainer.max_"
    assert text in capsys.readouterr().err
    assert (tmp_path / "mine" / "rounds" / "1-4steps").is_dir()
    assert not (tmp_path / "mine" / "student").exists()
    assert lightning(monkeypatch, *words, QUICK) == 0
    assert json.loads((tmp_path / "mine" / "student" / "provenance.json").read_text())["num_steps"] == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("captions")
def test_two_processes_go_the_whole_way(teacher_folder, tmp_path):
    """Each of the two commands inside starts the second process anew."""
    settings = QUICK.replace("{", "{trainer.accelerator: cpu, ")
    words = ["distill", str(teacher_folder), "--captions", "captions.txt", "--out", "mine", *WORDS[:-1], settings]
    command = [sys.executable, "-m", "bsa_lightning", *words, "--devices", "2"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = (tmp_path / "mine" / "scores.csv").read_text().splitlines()
    assert sum(row.startswith("student,") for row in rows) == 2
    assert (tmp_path / "mine" / "student" / "README.md").is_file()


@pytest.mark.usefixtures("captions")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "8", "4"], "nothing was wrong"),
        (["--steps", "8", "3"], "8 steps cannot be halved to 3"),
        (["--steps", "8"], "steps is 8, but must be two numbers, such as --steps 200 25"),
        (["--steps", "8", "x"], "steps"),
        (["--steps", "6", "3"], "does not divide the trained timesteps"),
        (["--steps", "8", "4", "--captions", "none.txt"], "none.txt does not exist"),
        (["--steps", "8", "4", "--captions", "one.txt"], "no caption is left to train on when 1 are held out"),
        (["--steps", "8", "4", "--updates", "0"], "updates is 0, but must be a whole number, at least 1"),
        (["--steps", "8", "4", "--weighting", "BSAA"], 'there is no class "BSAA", did you mean BSA?'),
        (["--steps", "8", "4", "--batch-size", "0"], "batch_size is 0"),
        (["--steps", "8", "4", "--batch-size", "400"], "fewer than one batch of 400 on each of 1 devices"),
        (["--steps", "8", "4", "--latents-per-caption", "0"], "latents_per_caption is 0"),
        (["--steps", "8", "4", "--seed", "-1"], "seed is -1"),
        (["--steps", "8", "4", "--learning-rate", "-1"], "learning_rate"),
        (["--steps", "8", "4", "--settings", "{data.batchsize: 3}"], "batchsize"),
        (["--steps", "8", "4", "--out", "captions.txt"], "captions.txt"),
        (["--steps", "8", "4", "other"], "one model is distilled"),
        (["--steps", "8", "4", "--guidance", "Baked", "--guidance.scale", "-1"], "guidance scale is -1"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_sampled(
    words, message, teacher_folder, tmp_path, monkeypatch, capsys
):
    def prepare_folder(*_, **__):
        raise bsa.UserError("nothing was wrong")

    (tmp_path / "one.txt").write_text("Rain\nrain!\n")
    monkeypatch.setattr(captions_alone, "prepare_folder", prepare_folder)
    before = sorted(tmp_path.rglob("*"))
    first = ["distill", str(teacher_folder), "--captions", "captions.txt", "--out", "mine"]
    assert lightning(monkeypatch, *first, *words) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("lightning distill: ")
    assert message in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("captions")
def test_a_student_that_could_not_be_exported_is_refused_before_anything_is_sampled(
    teacher_folder, tmp_path, monkeypatch, capsys
):
    def refuse(self, index, sampling):
        raise UserError(f"guidance is {sampling.guidance}, but {index['_class_name']} cannot pass a guidance scale")

    monkeypatch.setattr(TangoFamily, "student_index", refuse)
    monkeypatch.setattr(captions_alone, "prepare_folder", None)
    words = ["--guidance", "Embedded", "--guidance.scale", "2"]
    assert (
        lightning(monkeypatch, "distill", str(teacher_folder), "--captions=captions.txt", "--out=mine", *WORDS, *words)
        == 2
    )
    assert "guidance is embedded, but TangoPipeline cannot pass a guidance scale" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_the_learning_rate_is_one_for_sound_and_captions():
    assert [default_rate(name) for name in ("tiny", "tiny-flow", "models/tango2")] == [1e-4, 1e-4, 3e-5]


@pytest.mark.usefixtures("captions")
def test_a_stopped_distillation_names_the_same_command(teacher_folder, monkeypatch, capsys):
    def run_in_process(*_, only_check=False):
        if not only_check:
            raise StoppedError("stopped by SIGTERM after 3 updates; go on with --ckpt_path last")

    monkeypatch.setattr(captions_alone, "prepare_folder", lambda *_, **__: None)
    monkeypatch.setattr(captions_alone, "run_in_process", run_in_process)
    assert (
        lightning(monkeypatch, "distill", str(teacher_folder), "--captions=captions.txt", "--out=mine", *WORDS) == 143
    )
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == "lightning distill: stopped by SIGTERM after 3 updates; the same command goes on from there"


@pytest.mark.usefixtures("captions")
def test_python_takes_either_sound_or_captions(teacher_folder):
    with pytest.raises(bsa.UserError, match="name either train, and val if there is any, or captions alone"):
        bsa.distill(teacher_folder, out="mine", steps=(8, 4))
    with pytest.raises(bsa.UserError, match=r"nothing\.txt does not exist"):
        bsa.distill(teacher_folder, captions="nothing.txt", out="mine", steps=(8, 4))
