"""Time to the first word and to the first update, in CPU seconds, and what is imported until then."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.soundscapes import Soundscapes
from experiments.benchmarks.measure import Row

REPEATS = 3
DEMO = ["--config", "configs/demo.yaml"]
ANSWERS = {
    "`lightning --help`": (["--help"], "1"),
    "`lightning fit --help`": (["fit", "--help"], "1"),
    "`lightning score --help`": (["score", "--help"], "1"),
    "`lightning fit --print_config`": (["fit", *DEMO, "--print_config"], "3"),
    "a mistake of `lightning fit`": (["fit", *DEMO, "--trainer.max_steps", "0"], "3"),
    "a mistake of `lightning score`": (["score", "runs/nothing", "runs/nothing"], "3"),
    "a mistake of `lightning generate`": (["generate", "A tone", "--model", "runs/nothing"], "3"),
    "a mistake of `lightning report`": (["report", "runs/nothing"], "3"),
}
"""What is answered before networks are made: the words of the command line, and the seconds within which it should."""

HEAVY = ["torch", "lightning", "torchmetrics.functional", "torch._dynamo", "sympy", "scipy", "torchvision"]
HEAVY += ["diffusers", "transformers"]
IMPORTED = """
import sys
sys.argv = ["lightning", *{words!r}]
import bsa_lightning.cli.main as m
try:
    m.main()
except SystemExit:
    pass
print(len(sys.modules), *[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
FLOOR = """
import torch
from bsa_lightning.common.light_imports import light_imports
with light_imports():
    import lightning.pytorch.cli
from bsa_lightning.models.loading import load_codec, load_conditioner, load_denoiser
load_codec("tiny"), load_conditioner("tiny")  # whose fingerprints are compared with those of the latents
for _ in range(2):
    denoiser = load_denoiser("tiny")
optimizer = torch.optim.Adam(denoiser.parameters())
z, conditioning = denoiser.example_inputs(16)
denoiser(z, torch.full((16,), 0.5), conditioning).x.mean().backward()
optimizer.step()
"""
UPDATE = """
data: {{init_args: {{train: {{folder: {folder}/latents, clips: null}}, val: null}}}}
trainer: {{accelerator: cpu, max_steps: 1, enable_progress_bar: false}}
"""
"""On top of the demo's configuration: one update on data that is there."""


def python(*words: str) -> float:
    """User and system seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows() -> Iterator[Row | str]:
    """Seconds of the answers; the first update as a ratio, since it is mostly other packages' imports; the imports."""
    for what, (words, goal) in ANSWERS.items():
        values = [python("-m", "bsa_lightning", *words) for _ in range(REPEATS)]
        yield Row(f"{what}, CPU seconds", values, "", goal)
    with tempfile.TemporaryDirectory() as folder:
        prepare_folder(Soundscapes(16, seed=9), Path(folder) / "latents")
        (Path(folder) / "update.yaml").write_text(UPDATE.format(folder=folder))
        words = ["-m", "bsa_lightning", "fit", *DEMO, "--config", f"{folder}/update.yaml"]
        words += ["--wandb", "disabled", "--overwrite", "true", "--run", f"{folder}/run"]
        ratios = [python(*words) / python("-c", FLOOR) for _ in range(REPEATS)]
    yield Row(
        "`lightning fit` of one update, CPU seconds",
        ratios,
        "importing what it needs, loading the model, one update, called bare",
        "1.1",
    )
    yield from ("", "| until the answer | modules imported | of the slow packages |", "|---|---|---|")
    for what, (words, _) in ANSWERS.items():
        code = IMPORTED.format(words=words, heavy=HEAVY)
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        number, *names = result.stderr.splitlines()[-1].split()
        yield f"| {what} | {number} | {', '.join(names) or 'none'} |"
