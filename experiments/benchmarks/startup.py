"""Time to the first word and to the first update."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.soundscapes import Soundscapes
from experiments.benchmarks.measure import Row, seconds

REPEATS = 3
FLOOR = """
import torch, lightning.pytorch
from bsa_lightning.models.loading import load_denoiser
for _ in range(2):
    denoiser = load_denoiser("tiny")
z, conditioning = denoiser.example_inputs(16)
denoiser(z, torch.full((16,), 0.5), conditioning).x.mean().backward()
"""
UPDATE = """
data: {{init_args: {{train: {{folder: {folder}/latents, clips: null}}, val: null}}}}
trainer: {{accelerator: cpu, max_steps: 1, enable_progress_bar: false}}
"""
"""On top of the demo's configuration: one update on data that is there."""


def python(*words: str) -> float:
    """Seconds of a process."""
    return seconds(lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True))


def rows() -> list[Row]:
    """Seconds of the help; the first update as a ratio, since it is mostly other packages' imports."""
    with tempfile.TemporaryDirectory() as folder:
        prepare_folder(Soundscapes(16, seed=9), Path(folder) / "latents")
        (Path(folder) / "update.yaml").write_text(UPDATE.format(folder=folder))
        words = ["-m", "bsa_lightning", "fit", "--config", "configs/demo.yaml", "--config", f"{folder}/update.yaml"]
        words += ["--wandb", "disabled", "--overwrite", "true", "--run", f"{folder}/run"]
        ratios = [python(*words) / python("-c", FLOOR) for _ in range(REPEATS)]
    helps = [python("-m", "bsa_lightning", "--help") for _ in range(REPEATS)]
    return [
        Row("`lightning --help`, seconds", helps, "", "1.5"),
        Row("`lightning fit` of one update", ratios, "importing torch, lightning and the network, one update bare"),
    ]
