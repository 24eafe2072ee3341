"""The trajectory errors of a validation clip by clip, and their paired differences from those of another validation."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class ClipErrors(Metric):
    """Collects the trajectory error of each clip of a validation, from all ranks."""

    index: list[Tensor]
    errors: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("index", [], dist_reduce_fx="cat")
        self.add_state("errors", [], dist_reduce_fx="cat")

    def update(self, index: Tensor, errors: Tensor, counts: Tensor) -> None:
        """Adds a batch.

        Args:
            index: the place of each clip in its store, (batch,).
            errors: the trajectory errors, (batch,).
            counts: whether a clip counts, (batch,) bool; clips that only fill the batch do not.
        """
        self.index.append(index.to(errors.device)[counts])
        self.errors.append(errors[counts].double())

    def compute(self) -> Tensor:
        """Returns the errors in the order of the clips, (n,) float64 on the CPU; the same on every rank."""
        order = dim_zero_cat(self.index).argsort()
        return dim_zero_cat(self.errors)[order].cpu()


class Comparison(NamedTuple):
    """The trajectory error of a validation against that of an earlier one of the round, on the same clips and noise."""

    update: int
    """The number of updates of the round at the validation."""
    error: float
    """The mean trajectory error."""
    best_update: int
    """The number of updates at the earlier validation."""
    difference: float
    """The mean over clips of the error less that of the earlier validation."""
    half_width: float
    """The half width of the 95 % interval of the mean difference over clips; infinite for a single clip."""
    num_clips: int

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.difference - self.half_width

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.difference + self.half_width

    @property
    def is_lower(self) -> bool:
        """Whether the error is lower, beyond the interval."""
        return self.high < 0

    @property
    def is_higher(self) -> bool:
        """Whether the error is higher, beyond the interval, or is not a number."""
        return self.low > 0 or not math.isfinite(self.error)

    def __str__(self) -> str:
        how = "lower" if self.difference < 0 else "higher"
        beyond = "" if self.is_lower or self.is_higher else ", which may be chance"
        return (
            f"after {self.update} updates the trajectory error is {self.error:.4g}, {how} than after {self.best_update}"
            f" by {abs(self.difference):.3g}{beyond} (95 % interval of the difference: {self.low:+.3g} to"
            f" {self.high:+.3g}, {self.num_clips} clips)"
        )


def compare(errors: Tensor, update: int, best: Tensor, best_update: int) -> Comparison:
    """Compares two validations of a round.

    The interval is that of Student's t for the mean of the differences. Sums are exact, so that all ranks decide alike.

    Args:
        errors: the trajectory errors of the clips, (n,) float64.
        update: the number of updates at their validation.
        best: those of the earlier validation, (n,) float64 and finite.
        best_update: the number of updates there.
    """
    from scipy.stats import t

    n = len(errors)
    differences = (errors - best).tolist()
    mean, difference = math.fsum(errors.tolist()) / n, math.fsum(differences) / n
    half_width = math.inf
    if n > 1:
        variance = math.fsum((each - difference) ** 2 for each in differences) / (n - 1)
        half_width = float(t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    return Comparison(update, mean, best_update, difference, half_width, n)


def is_finite(errors: Tensor) -> bool:
    """Returns whether all errors of a validation are numbers, so that another one can be compared with it."""
    return bool(torch.isfinite(errors).all())
