"""Python and YAML build the same runs."""

import json
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from toy_clips import ToyClips

import bsa_lightning as bsa
from bsa_lightning.cli.main import main
from bsa_lightning.models import hub

QUIET = {"trainer.accelerator": "cpu", "trainer.enable_progress_bar": False, "data.batch_size": 4}


@pytest.fixture(scope="module")
def run(teacher_folder, tmp_path_factory):
    """A distilled and scored run, with the student that came back."""
    run = tmp_path_factory.mktemp("api") / "run"
    scoring = bsa.ScoringSettings(ToyClips(24), num_captions=20, seeds=[0, 1], num_samples=1, rivals=[])
    student = bsa.distill(
        teacher_folder,
        train=ToyClips(24),
        val=ToyClips(4),
        out=run,
        steps=(8, 2),
        updates=2,
        weighting=bsa.MinSNR(gamma=3.0),
        scoring=scoring,
        settings=QUIET,
    )
    bsa.evaluate(run, {"trainer.enable_progress_bar": False, "scoring.seeds": [0, 1, 2]})
    return run, student


def test_the_last_student_comes_back(run):
    folder, student = run
    assert student.folder == folder / "rounds" / "2-2steps"
    assert (student.sampling.num_steps, student.sampling.guidance, student.sampling.guidance_scale) == (2, "baked", 2.0)
    sound = student(["rain", "a dog barks"], seed=3)
    assert (sound.audios.shape, sound.audios.dtype) == ((2, student.codec.num_samples), np.float32)
    assert sound.sample_rate == student.codec.sample_rate


def test_the_recorded_configuration_makes_the_same_student(run, tmp_path, monkeypatch):
    folder, _ = run
    words = ["lightning", "fit", "--config", str(folder / "config.yaml"), "--run", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 0
    again = tmp_path / "run" / "rounds" / "2-2steps"
    network = "unet/diffusion_pytorch_model.safetensors"
    assert (again / network).read_bytes() == (folder / "rounds" / "2-2steps" / network).read_bytes()
    assert (tmp_path / "run" / "metrics.csv").read_bytes() != b""


def test_settings_are_recorded_as_the_command_would(run):
    config = yaml.safe_load((run[0] / "config.yaml").read_text())
    model = config["model"]["init_args"]
    assert model["weighting"] == {
        "class_path": "bsa_lightning.MinSNR",
        "init_args": {"gamma": 3.0},
    }
    assert model["plan"]["updates"] == 2
    assert config["data"]["init_args"]["batch_size"] == 4
    assert config["scoring"]["num_captions"] == 20


def test_scores_and_report(run):
    folder, _ = run
    report = bsa.report(folder, out=folder.parent / "report")
    assert "Student (min-snr-gamma3)" in report.table == report._repr_markdown_()
    assert "20 captions, 3 sampling seeds" in report.table
    assert report.figure.is_file()
    assert report.page.is_file()


def test_a_run_goes_on(run, teacher_folder, tmp_path):
    settings = QUIET | {"checkpoint_every": 1}
    arguments = {"train": ToyClips(24), "out": tmp_path / "run", "steps": (8, 4), "updates": 3, "seed": 5}
    whole = bsa.distill(teacher_folder, **arguments | {"out": tmp_path / "whole"}, settings=settings)
    again = bsa.distill(teacher_folder, **arguments, settings=settings | {"ckpt_path": "last"})
    for ours, theirs in zip(whole.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_mistake_is_one_sentence_and_leaves_nothing(teacher_folder, tmp_path):
    with pytest.raises(bsa.UserError, match="8 steps cannot be halved to 3"):
        bsa.distill(teacher_folder, train=ToyClips(24), out=tmp_path / "run", steps=(8, 3))
    with pytest.raises(bsa.UserError, match="holds no config"):
        bsa.evaluate(tmp_path / "run")
    with pytest.raises(bsa.UserError, match="runs is empty"):
        bsa.report()
    with pytest.raises(bsa.UserError, match="captions is empty"):
        bsa.sample(teacher_folder, [])
    for settings, text in (({"data.batchsize": 8}, "batchsize"), ({"weighting": "bsa"}, "weighting")):
        words = settings if "weighting" in settings else {"settings": settings}
        with pytest.raises(bsa.UserError, match=text):
            bsa.distill(teacher_folder, train=ToyClips(24), out=tmp_path / "run", steps=(8, 4), **words)
    with pytest.raises(bsa.UserError, match="steps is 8, but must be two numbers"):
        bsa.distill(teacher_folder, train=ToyClips(24), out=tmp_path / "run", steps=8)
    with pytest.raises(bsa.UserError, match="model is 7, but must be a folder"):
        bsa.load_model(7)
    with pytest.raises(bsa.UserError, match="captions holds 3, but must hold text"):
        bsa.sample(teacher_folder, ["rain", 3])
    assert list(tmp_path.iterdir()) == []
    assert sys.argv[0] != "fit"


def test_sampling_depends_on_the_seed_and_on_nothing_else(teacher_folder):
    model = bsa.load_model(teacher_folder)
    both = model(["rain", "a dog barks"], num_steps=2, seed=1)
    alone = bsa.sample(model, "a dog barks", num_steps=2, seed=1)
    other = bsa.sample(teacher_folder, ["rain", "a dog barks"], num_steps=2, seed=1)
    assert np.array_equal(both.audios, other.audios)
    assert not np.allclose(both.audios[1], alone.audios[0])  # the first clip's noise, not the second's
    again = model("a dog barks", num_steps=2, seed=1, numbers=[1])
    assert np.corrcoef(again.audios[0], both.audios[1])[0, 1] > 0.999


def test_a_pipeline_in_memory_is_the_model_that_it_came_from(run, tmp_path):
    """The teacher of a run as its own pipeline: what the run hands to diffusers comes back."""
    from bsa_lightning.distillation.export import export_student

    folder, student = run
    export_student(folder / "rounds" / "2-2steps", tmp_path / "model")
    pipeline = bsa.TangoPipeline.from_pretrained(tmp_path / "model", low_cpu_mem_usage=False)
    model = bsa.load_model(pipeline)
    assert model.folder == bsa.load_model(pipeline).folder
    for ours, theirs in zip(model.denoiser.parameters(), student.denoiser.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_hub_id_is_fetched(teacher_folder, monkeypatch):
    asked = []

    def snapshot_download(hub_id, *, allow_patterns):
        asked.append((hub_id, "*.safetensors" in allow_patterns))
        if hub_id == "somebody/nothing":
            raise OSError("404\nand more")
        return str(teacher_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert bsa.load_model("somebody/model").folder == teacher_folder
    assert asked[0] == ("somebody/model", True)
    with pytest.raises(bsa.UserError, match=r'model is "somebody/nothing".*cannot be fetched from the hub \(404\)'):
        bsa.load_model("somebody/nothing")
    assert hub.fetch_model is not None


def test_a_name_below_a_folder_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bsa.UserError, match='model is "models/tango", but no such folder exists; name'):
        bsa.load_model("models/tango")


def test_score(tmp_path):
    for side in ("real", "made"):
        (tmp_path / side).mkdir()
        for i in range(12):
            noise = np.random.default_rng(i).normal(scale=0.1, size=16_000 * 5)
            soundfile.write(tmp_path / side / f"{i}.wav", noise, 16_000)
    card = bsa.score(tmp_path / "real", tmp_path / "made")
    assert json.loads(json.dumps(card))["scores"]["fd_logmel"] == pytest.approx(0, abs=1e-6)
