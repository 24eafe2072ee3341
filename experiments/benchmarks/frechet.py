"""The Frechet distance over that of frechet-audio-distance, on rows whose distance is known."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence

import torch
from torch import Tensor

from bsa_lightning.evaluation.metrics.frechet import frechet_distance_of_rows
from experiments.benchmarks.measure import Row, typical_seconds

ROWS = 886
"""Clips of Tango's test set."""
REPEATS = {128: (15, 20), 2048: (1, 1)}
"""By dimensions: how often, and how many calls in a row; at 2048 one takes most of a minute.

In a row, because after each change from one to the other the threads of numpy and of torch wait for work on the same
cores for some milliseconds, which is as long as a call takes.
"""


def sides(num_rows: int, width: int) -> tuple[Tensor, Tensor, float]:
    """Two sets of rows, float64, with covariances of the same eigenvectors, and their distance in closed form."""
    generator = torch.Generator().manual_seed(width)
    rank = min(num_rows - 1, width)

    def orthonormal(height: int) -> Tensor:
        made = torch.randn(height, rank, generator=generator, dtype=torch.float64)
        made = made - made.mean(0) if height == num_rows else made
        return torch.linalg.qr(made).Q

    axes = orthonormal(width)
    scales = [torch.rand(rank, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2)]
    shift = torch.randn(width, generator=generator, dtype=torch.float64)
    x, y = (orthonormal(num_rows) * scale @ axes.T * (num_rows - 1) ** 0.5 for scale in scales)
    distance = (scales[0] - scales[1]).square().sum() + shift.square().sum()
    return x, y + shift, float(distance)


def rows() -> list[Row]:
    """How many times faster, and how large the relative error of both."""
    for name in ("laion_clap", "encodec"):  # fetched from the hub on import, and not needed here
        module = types.ModuleType(name)
        module.EncodecModel = None  # type: ignore[attr-defined]
        sys.modules.setdefault(name, module)
    from frechet_audio_distance import FrechetAudioDistance as Package

    found = []
    for width, (repeats, calls) in REPEATS.items():
        x, y, distance = sides(ROWS, width)
        pair = [rows.numpy() for rows in (x, y)]

        def theirs(pair: Sequence[object] = pair) -> float:
            statistics = [Package.calculate_embd_statistics(None, rows) for rows in pair]
            return float(Package.calculate_frechet_distance(None, *statistics[0], *statistics[1]))

        def ours(x: Tensor = x, y: Tensor = y) -> float:
            return float(frechet_distance_of_rows(x, y))

        ours()
        faster = [typical_seconds(theirs, calls) / typical_seconds(ours, calls) for _ in range(repeats)]
        errors = [abs(function() / distance - 1) for function in (ours, theirs)]
        over = "frechet-audio-distance (its time over ours)"
        found.append(Row(f"Frechet distance, {ROWS} rows of {width}", faster, over, "10, at least"))
        for whose, error in zip(("ours", "theirs"), errors, strict=True):
            found.append(Row(f"its relative error, {whose}", [error], "the closed form"))
    return found
