"""The Frechet distance of infinitely many generated clips, extrapolated from subsets of the clips.

Only the generated side is extrapolated; the bias due to the finite reference stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.data.order import seeded
from bsa_lightning.evaluation.metrics.kernel import NoValueError


class Extrapolation(NamedTuple):
    """A line that is fitted to distances over 1 / (number of clips)."""

    distance: float
    """The value of the line at 1/n = 0, which may be negative if the fit is bad."""
    slope: float
    """The slope of the line."""
    r_squared: float
    """The share of the variance that the line explains; below about 0.9 the distance at infinity is not reliable."""
    sizes: tuple[int, ...]
    """The number of clips of each subset."""
    distances: tuple[float, ...]
    """The distance of each subset."""


SMALLEST = 1 / 4
"""The share of the clips that is in the smallest subset."""
CLIPS, ROWS = 1, 2
"""The least numbers of clips and rows of the smallest subset, for each dimension.

With fewer, the distance is not a straight line over 1/n. With these numbers, the extrapolation leaves less than a tenth
of the difference that all clips have from the limit; with half as many rows a quarter, below the limit; with 110 clips
of 256 dimensions 83 % (``experiments/coverage``)."""


def refuse_short(*, num_clips: int, num_rows: int, num_features: int) -> None:
    """Refuses numbers of clips and rows from which the distance cannot be extrapolated, whatever the R^2.

    Args:
        num_clips: the number of generated clips.
        num_rows: the number of their rows.
        num_features: the number of features of a row.

    Raises:
        NoValueError: if there are too few clips or rows.
    """
    clips, rows = (round(each * num_features / SMALLEST) for each in (CLIPS, ROWS))
    if num_clips < clips or num_rows < rows:
        raise NoValueError(
            f"{num_clips} clips with {num_rows} rows of {num_features} numbers are too few to extrapolate from;"
            f" score at least {clips} clips with {rows} rows, or set at_infinity to false"
        )


def at_infinity(
    distance_of: Callable[[Tensor], float], *, num_clips: int, num_sizes: int = 15, seed: int = 0
) -> Extrapolation:
    """Fits distance = intercept + slope / n to subsets of n clips, from a quarter of the clips to all.

    Subsets are drawn without replacement, since a subset with duplicates would count as a smaller one.

    Args:
        distance_of: a function that returns the distance from the reference of the clips at the given positions, an
            index tensor.
        num_clips: the number of clips.
        num_sizes: the number of subsets, at least 2.
        seed: the seed of the draws.

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
