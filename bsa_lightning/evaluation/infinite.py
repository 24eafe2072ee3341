"""The Frechet distance at infinite sample size, extrapolated from subsets of the clips."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.data.order import seeded
from bsa_lightning.errors import UserError


class Extrapolation(NamedTuple):
    """A line through distances over 1 / (number of clips)."""

    distance: float
    """Where the line meets 1/n = 0. May be below zero where the line does not hold."""
    slope: float
    r_squared: float
    """Share of the variance that the line explains: below about 0.9 the distance at infinity says little."""
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


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
        UserError: if there are too few clips for ``num_sizes`` different sizes.
    """
    sizes = torch.linspace(num_clips / 4, num_clips, num_sizes).round().long().tolist()
    if sizes[0] < 2 or len(set(sizes)) < num_sizes:
        raise UserError(f"a distance at infinity needs {2 * num_sizes} clips, but there are {num_clips}; score more")
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
