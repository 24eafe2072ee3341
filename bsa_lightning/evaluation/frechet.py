"""The Frechet distance of two sets of rows, each seen as a Gaussian.

|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^1/2, and the last trace is the nuclear norm of R1^T R2 for any roots
S = R R^T: stable in float64 where the square root of the product is not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from bsa_lightning.errors import UserError


def frechet_distance(*, mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """Distance (squared, as FID and FAD report it) of two Gaussians, means (d,) and covariances (d, d), float64."""
    trace = torch.linalg.matrix_norm(_root(cov1).mT @ _root(cov2), ord="nuc")
    distance: Tensor = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * trace
    return distance.clamp(min=0)


def _root(cov: Tensor) -> Tensor:
    """R with R R^T = cov, for a covariance that rounding may have made slightly indefinite."""
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt()


class FrechetDistance(Metric):
    """Frechet distance between reference rows and generated rows; sums are float64 and add up over ranks.

    It counts rows, not clips. ``reset`` forgets the generated rows and keeps the reference.

    Args:
        num_features: d.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    generated_count: Tensor
    generated_sum: Tensor
    generated_outer: Tensor
    reference_count: Tensor
    reference_sum: Tensor
    reference_outer: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        zeros = torch.zeros
        for side in ("generated", "reference"):
            self.add_state(f"{side}_count", zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_sum", zeros(num_features, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(
                f"{side}_outer", zeros(num_features, num_features, dtype=torch.float64), dist_reduce_fx="sum"
            )

    def update(self, rows: Tensor, reference: bool = False) -> None:
        """Adds rows (..., num_features) to one side.

        Raises:
            UserError: if a value is not finite.
        """
        rows = rows.reshape(-1, rows.shape[-1]).double()
        if not rows.isfinite().all():
            raise UserError("an embedding is not finite, so the generated sound is broken; listen to the samples")
        if reference:
            self.reference_count += len(rows)
            self.reference_sum += rows.sum(0)
            self.reference_outer += rows.mT @ rows
        else:
            self.generated_count += len(rows)
            self.generated_sum += rows.sum(0)
            self.generated_outer += rows.mT @ rows

    def compute(self) -> Tensor:
        """The distance, a float64 scalar.

        Raises:
            UserError: if a side has fewer than two rows.
        """
        fewest = int(min(self.generated_count, self.reference_count))
        if fewest < 2:
            raise UserError(f"a Frechet distance needs two rows on each side, but one has {fewest}; score more clips")
        mean1, cov1 = _statistics(self.generated_count, self.generated_sum, self.generated_outer)
        mean2, cov2 = _statistics(self.reference_count, self.reference_sum, self.reference_outer)
        return frechet_distance(mean1=mean1, cov1=cov1, mean2=mean2, cov2=cov2)

    def reset(self) -> None:
        reference = (self.reference_count, self.reference_sum, self.reference_outer)
        super().reset()
        self.reference_count, self.reference_sum, self.reference_outer = reference

    def set_dtype(self, dst_type: str | torch.dtype) -> FrechetDistance:  # noqa: ARG002
        """Sums stay float64 whatever the precision of the model."""
        return self


def _statistics(count: Tensor, total: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance from sums."""
    mean = total / count
    return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)
