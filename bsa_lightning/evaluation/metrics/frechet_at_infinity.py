"""The Frechet distance of infinitely many generated clips, extrapolated from subsets of the clips.

The generated side alone is extrapolated. The reference keeps its number of clips, and what those add to the distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.data.order import seeded
from bsa_lightning.evaluation.metrics.kernel import NoValueError


class Extrapolation(NamedTuple):
    """A line through distances over 1 / (number of clips)."""

    distance: float
    """Where the line meets 1/n = 0. May be below zero where the line does not hold."""
    slope: float
    r_squared: float
    """Share of the variance that the line explains: below about 0.9 the distance at infinity says little."""
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


SMALLEST = 1 / 4
"""The share of the clips that the smallest subset has."""
CLIPS, ROWS = 1, 2
"""Clips and rows a dimension that the smallest subset has at least. The distance is no straight line over 1/n before:
of the difference from the limit that all clips have, less than a tenth is left with so many; with half as many rows a
quarter, below zero; with 110 clips of 256 dimensions, 83 % (``experiments/coverage``)."""


def refuse_short(*, num_clips: int, num_rows: int, num_features: int) -> None:
    """Refuses numbers of clips and rows from which the distance cannot be extrapolated, whatever its R^2.

    Args:
        num_clips: generated clips.
        num_rows: rows of all of them.
        num_features: dimensions of a row.

    Raises:
        NoValueError: saying how many there are and must be.
    """
    clips, rows = (round(each * num_features / SMALLEST) for each in (CLIPS, ROWS))
    if num_clips < clips or num_rows < rows:
        raise NoValueError(
            f"{num_clips} clips with {num_rows} rows of {num_features} numbers give no limit;"
            f" score at least {clips} clips with {rows} rows, or set at_infinity to false"
        )


def at_infinity(
    distance_of: Callable[[Tensor], float], *, num_clips: int, num_sizes: int = 15, seed: int = 0
) -> Extrapolation:
    """Fits distance = intercept + slope / n over subsets of the clips, from a quarter of them to all.

    Args:
        distance_of: the distance of the clips at these positions, an index tensor, from the reference.
        num_clips: of which a subset of n is drawn, without replacement: duplicates would make it a smaller one.
        num_sizes: how many subsets.
        seed: of the draws.

    Raises:
        NoValueError: if there are too few clips for ``num_sizes`` different sizes.
    """
    sizes = torch.linspace(SMALLEST * num_clips, num_clips, num_sizes).round().long().tolist()
    if sizes[0] < 2 or len(set(sizes)) < num_sizes:
        raise NoValueError(f"a distance at infinity needs {2 * num_sizes} clips, but there are {num_clips}; score more")
    distances = [
        distance_of(torch.randperm(num_clips, generator=seeded(seed, size))[:size].sort().values) for size in sizes
    ]
    inverse, y = 1 / torch.tensor(sizes, dtype=torch.float64), torch.tensor(distances, dtype=torch.float64)
    design = torch.stack([torch.ones_like(inverse), inverse], dim=1)
    intercept, slope = torch.linalg.lstsq(design, y[:, None]).solution[:, 0].tolist()
    spread = (y - y.mean()).square().sum()
    residual = (y - design @ torch.tensor([intercept, slope], dtype=torch.float64)).square().sum()
    r_squared = float(1 - residual / spread) if spread > 0 else 1.0
    return Extrapolation(intercept, slope, r_squared, tuple(sizes), tuple(distances))
