"""The kernel audio distance (Chung et al. 2025): an unbiased squared maximum mean discrepancy, times 100.

Its expectation does not depend on the number of rows, so it is the one to read when there are few; it may be negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bsa_lightning.errors import UserError

SCALE = 100.0
_CHUNK = 2048
_MOST = 10_000


class NoValueError(UserError):
    """A measure that has no value for some sound, whatever the others have."""


class KernelDistance:
    """100 MMD^2 of generated rows from one reference, under exp(-|x - y|^2 / (2 bandwidth^2)), in float64.

    Args:
        reference: rows (n, d) of real sound.
        bandwidth: none is the median distance of two reference rows, as the paper has it (its code takes the other
            side's).

    Raises:
        NoValueError: if there are fewer than two rows, or half of the pairs of rows are alike.
    """

    def __init__(self, reference: Tensor, *, bandwidth: float | None = None) -> None:
        _refuse_single(reference)
        self._centre = reference.double().mean(0)
        self._reference = reference.double() - self._centre
        self.bandwidth = median_distance(reference) if bandwidth is None else bandwidth
        if self.bandwidth == 0:
            raise NoValueError(
                "half of the pairs of reference rows are alike, as those of padded silence are, so that their median"
                " distance gives no bandwidth; score longer sound"
            )
        self._within = _within(self._reference, self.bandwidth)

    def __call__(self, generated: Tensor) -> Tensor:
        """The distance of rows (m, d), a scalar.

        Raises:
            NoValueError: if there are fewer than two rows.
        """
        _refuse_single(generated)
        x, y = self._reference, generated.double() - self._centre
        between = _kernel_sum(x, y, self.bandwidth) / (len(x) * len(y))
        return SCALE * (self._within + _within(y, self.bandwidth) - 2 * between)


def median_distance(rows: Tensor) -> float:
    """The median Euclidean distance of two of the rows (n, d); beyond 10 000 rows, of that many, evenly spaced."""
    rows = rows[:: -(-len(rows) // _MOST)].double()
    return float(torch.nn.functional.pdist(rows).median())


def _refuse_single(rows: Tensor) -> None:
    if len(rows) < 2:
        raise NoValueError(f"a kernel distance needs two rows on each side, but one has {len(rows)}; score more clips")


def _within(rows: Tensor, bandwidth: float) -> Tensor:
    """The mean kernel of two different rows."""
    n = len(rows)
    return (_kernel_sum(rows, rows, bandwidth) - n) / (n * (n - 1))


def _kernel_sum(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    chunks = [(-_squares(part, y) / (2 * bandwidth**2)).exp_().sum() for part in x.split(_CHUNK)]
    return torch.stack(chunks).sum()


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (n, m) of rows (n, d) and (m, d)."""
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    return torch.addmm(norms, x, y.mT, alpha=-2).clamp_(min=0)
