"""The Frechet distance of two sets of rows, each seen as a Gaussian.

|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^1/2. With S = F^T F the last trace is the nuclear norm of F1 F2^T: singular
values of a product of factors keep their digits in float64 where roots of the eigenvalues of S1 S2 lose half of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bsa_lightning.errors import UserError


def frechet_distance_of_rows(x: Tensor, y: Tensor) -> Tensor:
    """Distance (squared, as FID and FAD report it) of rows (n, d) and (m, d), with unbiased covariances; float64.

    Raises:
        UserError: if a side has fewer than two rows.
    """
    if (fewest := min(len(x), len(y))) < 2:
        raise UserError(f"a Frechet distance needs two rows on each side, but one has {fewest}; score more clips")
    x, y = x.double(), y.double()
    return _distance(x.mean(0), _factor(x), y.mean(0), _factor(y))


def frechet_distance(*, mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """The same of two Gaussians, means (d,) and covariances (d, d), float64."""
    return _distance(mean1, _factor_of(cov1), mean2, _factor_of(cov2))


def _distance(mean1: Tensor, factor1: Tensor, mean2: Tensor, factor2: Tensor) -> Tensor:
    nuclear = torch.linalg.svdvals(factor1 @ factor2.mT).sum()
    traces = factor1.square().sum() + factor2.square().sum()
    distance: Tensor = (mean1 - mean2).square().sum() + traces - 2 * nuclear
    return distance.clamp(min=0)


def _factor(rows: Tensor) -> Tensor:
    """F with F^T F the covariance of ``rows``, (min(n, d), d)."""
    n, d = rows.shape
    centred = (rows - rows.mean(0)) / (n - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if n > d else centred


def _factor_of(cov: Tensor) -> Tensor:
    """F with F^T F = cov, for a covariance that rounding may have made slightly indefinite."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=0).sqrt()).mT
