"""The Frechet distance of two sets of rows, each seen as a Gaussian.

|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^1/2. With S = F^T F the last trace is the nuclear norm of F1 F2^T: singular
values of a product of factors keep their digits in float64 where roots of the eigenvalues of S1 S2 lose half of them.
Squares are several times faster to take apart, and do where the smallest singular value is not far below the largest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError

WELL_CONDITIONED = 1e-3
"""Smallest over largest singular value, from which squares are taken: they add an error of 1e-13 of the largest."""

SMALL = 2**17
"""Entries a side up to which one thread is taken: more gain nothing there, and may wait longer than all the work."""


def frechet_distance_of_rows(x: Tensor, y: Tensor) -> Tensor:
    """Distance (squared, as FID and FAD report it) of rows (n, d) and (m, d), with unbiased covariances; float64.

    Raises:
        UserError: if a side has fewer than two rows.
    """
    if (fewest := min(len(x), len(y))) < 2:
        raise UserError(f"a Frechet distance needs two rows on each side, but one has {fewest}; score more clips")
    with _threads(1 if max(x.numel(), y.numel()) <= SMALL else torch.get_num_threads()):
        return _distance(*_mean_and_factor(x.double()), *_mean_and_factor(y.double()))


def frechet_distance(*, mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """The same of two Gaussians, means (d,) and covariances (d, d), float64."""
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
    """Sum of the singular values of F1 F2^T."""
    product = factor1 @ factor2.mT
    is_full = len(factor1) == len(factor2) == factor1.shape[1]  # else its rank is lower, and its smallest is 0
    if is_full and (gram := product @ product.mT).isfinite().all():
        squares = torch.linalg.eigvalsh(gram)
        if squares[0] > WELL_CONDITIONED**2 * squares[-1]:
            return squares.sqrt().sum()
    return torch.linalg.svdvals(product).sum()


def _mean_and_factor(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,) of ``rows``, and F (min(n, d), d) with F^T F their covariance."""
    mean = rows.mean(0)
    return mean, _factor(rows - mean)


def _factor(centred: Tensor) -> Tensor:
    """F of rows whose mean is zero."""
    n, d = centred.shape
    if n <= d:
        return centred / (n - 1) ** 0.5
    factor, failed = torch.linalg.cholesky_ex(centred.mT @ centred / (n - 1), upper=True)
    sizes = factor.diagonal()
    if not failed and sizes.min() > WELL_CONDITIONED * sizes.max():
        return factor
    return torch.linalg.qr(centred, mode="r").R / (n - 1) ** 0.5


def _factor_of(cov: Tensor) -> Tensor:
    """F with F^T F = cov, for a covariance that rounding may have made slightly indefinite."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=0).sqrt()).mT
