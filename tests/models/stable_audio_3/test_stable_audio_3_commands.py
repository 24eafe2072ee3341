"""The way from a folder in diffusers' layout to a student, by the commands that the documentation names."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import stable_audio_3_model
import torch
from tolerances import SAMPLES

from bsa_lightning.cli.main import main
from bsa_lightning.generation.from_noise import noise_of
from bsa_lightning.generation.text_to_audio import TextToAudio

FIXTURE = Path(__file__).parents[4] / "shared" / "data" / "stable-audio-3-tiny"
SECONDS = 0.5
RUN = """
run: run
model:
  class_path: ProgressiveDistillation
  init_args:
    teacher: model
    plan: {start_steps: 8, end_steps: 2, updates: 2}
    weighting: BSA
    guidance: {class_path: Baked, init_args: {scale: 4.0}}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 1.0e-4}}
data:
  class_path: AudioCapsLatents
  init_args: {train: {folder: train}, val: {folder: val}, batch_size: 4, num_val_clips: 4}
trainer: {accelerator: cpu, val_check_interval: 2, check_val_every_n_epoch: null}
scoring:
  clips: {class_path: CaptionedFolder, init_args: {folder: wav/val}}
  num_captions: 2
  seeds: [0, 1]
  embeddings: [{class_path: LogMelStatistics}]
"""


def lightning(*words):
    result = subprocess.run(
        [sys.executable, "-m", "bsa_lightning", *words], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The fixture's model and noise with captions, stereo at its rate."""
    shutil.copytree(FIXTURE, tmp_path / "model", copy_function=shutil.copyfile)
    (tmp_path / "model" / "provenance.json").write_text(json.dumps({"seconds": SECONDS}))
    (tmp_path / "run.yaml").write_text(RUN)
    generator = np.random.default_rng(0)
    for part, number in (("train", 8), ("val", 8)):
        (tmp_path / "wav" / part).mkdir(parents=True)
        for i in range(number):
            sound = 0.1 * generator.standard_normal((int(SECONDS * 44_100), 2))
            soundfile.write(tmp_path / "wav" / part / f"{i}.wav", sound, 44_100)
            (tmp_path / "wav" / part / f"{i}.txt").write_text("A dog barks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not FIXTURE.is_dir(), reason=f"{FIXTURE} is not there")
@pytest.mark.timeout(300)
def test_prepare_fit_test_export_and_generate(home):
    for part in ("train", "val"):
        words = ["prepare", "--teacher", "model", "--clips", "CaptionedFolder", "--clips.folder", f"wav/{part}"]
        lightning(*words, "--out", part, "--batch_size", "4")
    lightning("fit", "--config", "run.yaml")
    lightning("test", "--config", "run/config.yaml")
    lightning("export", "run", "student")
    lightning("generate", "A dog barks", "--model", "student", "--out", "sounds")
    (file,) = (home / "sounds").glob("*.wav")
    assert (soundfile.info(file).frames, soundfile.info(file).channels) == (int(SECONDS * 44_100), 2)

    noise = noise_of([0], seed=0, shape=(8, 6))
    pipeline = stable_audio_3_model.read_pipeline(home / "student")
    settings = {"num_inference_steps": 2, "guidance_scale": 1.0, "duration": SECONDS, "latents": noise}
    theirs = pipeline("A dog barks", **settings).audios
    ours = TextToAudio(home / "student")(["A dog barks"], seed=0).audios
    torch.testing.assert_close(torch.from_numpy(ours), theirs, **SAMPLES)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model_index.json", "is in diffusers' layout already, and needs no conversion"),
        ("model_config.json", "is in the layout of Stability AI's own code; make a model folder of it with the"),
    ],
)
def test_convert_says_what_it_cannot_convert(tmp_path, monkeypatch, capsys, file, message):
    (tmp_path / file).write_text("{}")
    monkeypatch.setattr(sys, "argv", ["lightning", "convert", str(tmp_path), str(tmp_path / "out")])
    assert main() == 2
    assert f"{tmp_path} {message}" in capsys.readouterr().err
