"""The documented commands, one after the other, on the checkpoint that the original code has written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from bsa_lightning.evaluation.scores import ScoreFile

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "tangoflux-tiny"
ROOT = Path(__file__).resolve().parents[3]
SETTINGS = {
    "model": {"init_args": {"plan": {"start_steps": 8, "end_steps": 2, "updates": 2}, "teacher": "models/tangoflux"}},
    "data": {
        "init_args": {
            "train": {"folder": "data/train"},
            "val": {"folder": "data/val"},
            "batch_size": 2,
            "num_val_clips": 2,
        }
    },
    "scoring": {
        "clips": {"class_path": "CaptionedFolder", "init_args": {"folder": "sound/val"}},
        "num_captions": 4,
        "seeds": [0],
        "rivals": [],
        "embeddings": [{"class_path": "LogMelStatistics"}],
    },
    "trainer": {"val_check_interval": 2, "accumulate_grad_batches": 1, "accelerator": "cpu"},
}
OPEN = """
import sys, torch
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained("student", custom_pipeline="tangoflux_pipeline", trust_remote_code=True)
noise = torch.load("noise.pt")
torch.save(pipeline("A dog barks", latents=noise, output_type="pt").audios, "theirs.pt")
assert not [name for name in sys.modules if name.startswith("bsa_lightning")]
"""
OURS = """
import torch
from bsa_lightning.generation.from_noise import generate
from bsa_lightning.models.loading import load_parts
model = load_parts("student")
ours = generate(
    denoiser=model.denoiser, codec=model.codec, conditioning=model.conditioner(["A dog barks"]),
    null=model.conditioner.null(), guidance_scale=model.sampling.scale(), num_steps=2, noise=torch.load("noise.pt"),
)
assert (ours - torch.load("theirs.pt")).abs().max() < 1e-4
"""


@pytest.fixture
def work(tmp_path):
    """An empty folder with a little stereo sound."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 4)):
        (tmp_path / "sound" / split).mkdir(parents=True)
        for i in range(count):
            soundfile.write(tmp_path / f"sound/{split}/{i}.wav", 0.3 * rng.standard_normal((44_100, 2)), 44_100)
            (tmp_path / f"sound/{split}/{i}.txt").write_text("A dog barks\n" if i % 2 else "Rain falls on a roof\n")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_the_original_files_to_a_student_in_diffusers_alone(work):
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": "",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(work / "modules"),
    }

    def python(*words):
        command, known = [sys.executable, *words], environment | {"HOME": str(work)}
        done = subprocess.run(command, check=False, cwd=work, env=known, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]

    def lightning(*words):
        python("-m", "bsa_lightning", *words)

    lightning("convert", str(SHARED), "models/tangoflux")
    for split in ("train", "val"):
        clips = ("--clips", "CaptionedFolder", "--clips.folder", f"sound/{split}")
        lightning("prepare", *clips, "--out", f"data/{split}", "--teacher", "models/tangoflux")
    recipe = ("--config", "tango-audiocaps", "--config", "teacher/tangoflux", "--config", "small.yaml", "--run", "run")
    lightning("fit", *recipe)
    lightning("test", *recipe)
    rows = [row for row in ScoreFile(work / "run/scores.csv").rows() if row["model"] == "student"]
    assert [row["nfe"] for row in rows] == ["4", "2"]
    lightning("export", "run", "student")
    lightning("generate", "A dog barks", "--model", "student", "--out", "sound/student")
    (path,) = (work / "sound/student").glob("*.wav")
    info = soundfile.info(path)
    assert (info.channels, info.samplerate, info.frames) == (2, 44_100, 21 * 2048)
    python("-c", 'import torch; torch.save(torch.randn(1, 8, 21), "noise.pt")')
    python("-c", OPEN)
    python("-c", OURS)
