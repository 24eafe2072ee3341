"""Nothing that a command did not write is replaced or removed, by it or by another process beside it."""

import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_faults import fitted, run
from reporting.runs import write_run
from torch import nn

from bsa_lightning.cli.generate import generate
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.locks import LOCK
from bsa_lightning.data import audio
from bsa_lightning.diffusion.schedule import CosineSchedule
from bsa_lightning.generation import text_to_audio
from bsa_lightning.generation import wav_writer as module
from bsa_lightning.generation.wav_writer import WavWriter
from bsa_lightning.models.registry import resolve_folder
from bsa_lightning.models.sampling_settings import SamplingSettings
from bsa_lightning.reporting.report import report

ROOT = Path(__file__).parent.parent.parent
LOCKED = """
import sys
from pathlib import Path
from bsa_lightning.training.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print(flush=True)
    input()
"""


@pytest.fixture
def at_work(tmp_path):
    """The process that has the run folder's lock."""
    words = [sys.executable, "-c", LOCKED, str(tmp_path / "run")]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    other.stdout.readline()
    yield other
    other.communicate(b"\n")


@pytest.mark.parametrize("words", [(), ("--ckpt_path", "last"), ("--overwrite", "true")])
def test_two_processes_never_share_a_run(tmp_path, at_work, words, monkeypatch):
    monkeypatch.setattr("bsa_lightning.training.run_folder._PATIENCE", 0.2)
    with pytest.raises(UserError, match="where another process is at work; wait until it has ended, or name another"):
        fitted(tmp_path, *words).read()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


def test_a_run_whose_process_was_killed_goes_on(tmp_path, at_work):
    at_work.kill()
    assert fitted(tmp_path, "--ckpt_path", "last").read() == 0
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("slurm-17.out", ()),
        ("job.err", ()),
        ("notes.txt", ("--ckpt_path", "last")),
        ("slurm-17.out", ("--ckpt_path", "last")),
    ],
)
def test_a_run_begins_beside_other_files(tmp_path, name, words):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    assert fitted(tmp_path, *words).read() == 0
    assert (tmp_path / "run" / name).read_text() == "mine"
    assert fitted(tmp_path, "--overwrite", "true").read() == 0
    assert (tmp_path / "run" / name).read_text() == "mine"


@pytest.mark.parametrize("words", [(), ("--ckpt_path", "last"), ("--overwrite", "true")])
@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.csv", "scores.json", "checkpoints/mine.ckpt", "samples/a.wav"]
)
def test_a_file_of_the_same_name_is_not_replaced(tmp_path, name, words):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UserError, match="is not a run's folder; name another with --run"):
        fitted(tmp_path, *words).read()
    assert [found for found in (tmp_path / "run").rglob("*") if found.is_file()] == [path]
    assert path.read_text() == "mine"


class Nothing:
    def __call__(self, captions=()):
        return torch.zeros(1)

    def null(self):
        return torch.zeros(1)


class Silence(WavWriter):
    """Makes silence, at once."""

    def __init__(self, model, **settings):
        nn.Module.__init__(self)
        self.folder = resolve_folder(model)
        self.weight = nn.Parameter(torch.zeros(1))
        self.codec = SimpleNamespace(latent_shape=(1,), sample_rate=16_000)
        self.num_steps, self.guidance_scale, self.seed = 1, 1.0, 0
        self.sampling = SamplingSettings(1, "outside", 1.0)
        self.denoiser = SimpleNamespace(schedule=CosineSchedule(), parameters=lambda: iter([self.weight]))
        self.conditioner = Nothing()


@pytest.fixture
def silence(monkeypatch):
    monkeypatch.setattr(module, "WavWriter", Silence)
    monkeypatch.setattr(text_to_audio, "generate", lambda noise, **_: torch.zeros(len(noise), 16_000))


def test_generate_replaces_its_own_sound_alone(tmp_path, silence, capsys):
    generate(["Rain"], out=tmp_path)
    path = tmp_path / "0000-rain.wav"
    generate(["Rain"], out=tmp_path)
    assert audio.is_ours(path)
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"0000-rain.wav is there already and was not made here"):
        generate(["Rain"], out=tmp_path)
    assert path.read_bytes() == b"mine"


def test_a_full_disk_is_a_sentence_and_leaves_no_half_a_sound(tmp_path, silence, small_disk):
    small_disk(10_000)
    try:
        with pytest.raises(UserError, match="is full; free some space"):
            generate(["Rain"], out=tmp_path / "out")
    finally:
        small_disk(resource.RLIM_INFINITY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["index.html", "table.md", "figure.png", "differences.csv"])
def test_a_report_replaces_reports_alone(tmp_path, name, capsys):
    run_folder, out = write_run(tmp_path / "run"), tmp_path / "site"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(UserError, match=f"where {name} is not a report's; name another folder"):
        report([run_folder], out=out)
    assert [path.read_text() for path in out.iterdir()] == ["mine"]
    (out / name).rename(out / "other")
    report([run_folder], out=out)
    report([run_folder], out=out)
    assert (out / "other").read_text() == "mine"


def test_a_refused_command_leaves_not_even_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ("generate x --steps 0 --out a/b", "score c d --out e/f.json --cache g"):
        with pytest.raises(UserError):
            run(words.split())
    assert not list(tmp_path.iterdir())
