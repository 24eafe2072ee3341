"""What this project adds to the time of the networks alone, as ratios measured side by side in one run.

Run as ``make bench``; the table goes to the screen and to ``experiments/benchmarks/results.md``. Names of parts
(``python -m experiments.benchmarks.bench frechet``) print those alone and keep nothing.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results.md"
PARTS = ("training", "sampling", "data_path", "frechet", "startup")


def main() -> None:
    """Measures, prints, and keeps the table."""
    warnings.filterwarnings("ignore")
    parts = sys.argv[1:] or PARTS
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "diffusers"))
    lines = [
        "# Benchmarks",
        "",
        f"`make bench` on {os.cpu_count()} cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}),"
        f" {versions}: the built-in teacher, batches of 16, float32, on the CPU.",
        "",
        "| what | median | range | over | goal |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for part in parts:
        for row in importlib.import_module(f"experiments.benchmarks.{part}").rows():
            lines.append(str(row))
            print(row, flush=True)
    if parts == PARTS:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
