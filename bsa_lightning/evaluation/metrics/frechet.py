"""The Frechet distance of two sets of rows, each seen as a Gaussian.

It is |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^1/2. With S = F^T F the last trace is the nuclear norm of F1 F2^T: the
singular values of this product keep their digits in float64, where roots of the eigenvalues of S1 S2 lose half of them.
If the product is well conditioned, the eigenvalues of its square are precise enough, and several times faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bsa_lightning.evaluation.metrics.kernel import NoValueError

WELL_CONDITIONED = 1e-3
"""The ratio of smallest to largest singular value above which squares are used; the error is 1e-13 of the largest."""

SMALL = 2**17
"""The number of entries up to which one thread is used, since more threads gain nothing and may wait long."""


def frechet_distance_of_rows(x: Tensor, y: Tensor) -> Tensor:
    """Returns the distance (squared, as FID and FAD report it) of two sets of rows, with unbiased covariances; float64.

    Args:
        x: the rows of one side, (n, d).
        y: the rows of the other side, (m, d).

    Raises:
        NoValueError: if a side has fewer than two rows.
    """
    if (fewest := min(len(x), len(y))) < 2:
        raise NoValueError(f"a Frechet distance needs two rows on each side, but one has {fewest}; score more clips")
    with _threads(1 if max(x.numel(), y.numel()) <= SMALL else torch.get_num_threads()):
        return _distance(*_mean_and_factor(x.double()), *_mean_and_factor(y.double()))


def frechet_distance(*, mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """Returns the distance of two Gaussians, with means (d,) and covariances (d, d), float64."""
    return _distance(mean1, _factor_of(cov1), mean2, _factor_of(cov2))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _distance(mean1: Tensor, factor1: Tensor, mean2: Tensor, factor2: Tensor) -> Tensor:
    traces = factor1.square().sum() + factor2.square().sum()
    distance: Tensor = (mean1 - mean2).square().sum() + traces - 2 * _nuclear_norm(factor1, factor2)
    return distance.clamp(min=0)


def _nuclear_norm(factor1: Tensor, factor2: Tensor) -> Tensor:
    """Returns the sum of the singular values of F1 F2^T."""
    product = factor1 @ factor2.mT
    is_full = len(factor1) == len(factor2) == factor1.shape[1]  # else the smallest singular value is 0
    if is_full and (gram := product @ product.mT).isfinite().all():
        squares = torch.linalg.eigvalsh(gram)
        if squares[0] > WELL_CONDITIONED**2 * squares[-1]:
            return squares.sqrt().sum()
    return torch.linalg.svdvals(product).sum()


def _mean_and_factor(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean of rows (n, d), (d,), and a factor F of their covariance F^T F, (min(n, d), d)."""
    mean = rows.mean(0)
    return mean, _factor(rows - mean)


def _factor(centred: Tensor) -> Tensor:
    """Returns the factor F of the covariance of rows (n, d) whose mean is zero."""
    n, d = centred.shape
    if n <= d:
        return centred / (n - 1) ** 0.5
    factor, failed = torch.linalg.cholesky_ex(centred.mT @ centred / (n - 1), upper=True)
    sizes = factor.diagonal()
    if not failed and sizes.min() > WELL_CONDITIONED * sizes.max():
        return factor
    return torch.linalg.qr(centred, mode="r").R / (n - 1) ** 0.5


def _factor_of(cov: Tensor) -> Tensor:
    """Returns the factor F with F^T F = cov, for a covariance that rounding may have made slightly indefinite."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=0).sqrt()).mT
