"""The kernel audio distance (Chung et al. 2025): an unbiased squared maximum mean discrepancy, times 100.

Its expectation does not depend on the number of clips, so that it is preferable with few clips; it may be negative.
It is unbiased only over pairs of rows from different clips and captions, since rows of one clip are alike, and so are
two clips of one caption.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError

SCALE = 100.0
_CHUNK = 2048
"""The most rows of one side whose kernel is computed at once."""
_PAIRS = 2**24
"""The most pairs of rows whose kernel is in memory at once."""
_MOST = 10_000


class NoValueError(UserError):
    """One measure has no value for this sound; other measures may have one."""


class KernelDistance:
    """100 MMD^2 of generated rows and one reference, with the kernel exp(-|x - y|^2 / (2 bandwidth^2)), in float64.

    It is made up of three means of the kernel: within the reference, within the generated rows, and between the two.
    Each is over pairs of rows from clips with different numbers (Gretton et al. 2012, Lemma 6), which leaves out pairs
    of rows of one clip, and pairs of a generated clip and the recording of the same caption, which have one number.

    Args:
        reference: the rows of real sound, (n, d).
        clips: the number of each row's clip, (n,); ``None`` takes every row for a clip of its own.
        bandwidth: the bandwidth of the kernel; ``None`` is the median distance of two reference rows, as in the paper.

    Raises:
        NoValueError: if there are fewer than two clips, or half of the pairs of rows are identical.
    """

    def __init__(self, reference: Tensor, clips: Tensor | None = None, *, bandwidth: float | None = None) -> None:
        self._centre = reference.double().mean(0)
        self._reference = reference.double() - self._centre
        self._clips = clips
        _refuse_single(self._reference, clips)
        self.bandwidth = median_distance(reference) if bandwidth is None else bandwidth
        if self.bandwidth == 0:
            raise NoValueError(
                "half of the pairs of rows of one side are alike, as those of padded silence are, so that their median"
                " distance gives no bandwidth; score longer sound"
            )
        self._within = self._mean(self._reference, self._reference, _numbers(self._reference, clips))

    def __call__(self, generated: Tensor, clips: Tensor | None = None) -> Tensor:
        """Returns the distance of generated rows from the reference, a scalar.

        Args:
            generated: the rows of generated sound, (m, d).
            clips: the number of each row's clip, (m,), which is also the number of the recording of the same caption in
                the reference. ``None`` takes every row for a clip of its own, without a recording.

        Raises:
            NoValueError: if there are fewer than two clips.
        """
        x, y = self._reference, generated.double() - self._centre
        _refuse_single(y, clips)
        within = self._mean(y, y, _numbers(y, clips))
        paired = None if clips is None or self._clips is None else (self._clips, clips)
        return SCALE * (self._within + within - 2 * self._mean(x, y, paired))

    def _mean(self, x: Tensor, y: Tensor, clips: tuple[Tensor, Tensor] | None) -> Tensor:
        """Returns the mean of the kernel over pairs of rows of ``x`` and ``y`` from clips with different numbers."""
        total, count = torch.zeros((), dtype=x.dtype, device=x.device), 0
        chunk = max(1, min(_CHUNK, _PAIRS // len(y)))
        for first in range(0, len(x), chunk):
            kernel = (-_squares(x[first : first + chunk], y) / (2 * self.bandwidth**2)).exp_()
            if clips is not None:
                same = clips[0][first : first + chunk, None] == clips[1]
                kernel.masked_fill_(same, 0.0)
                count -= int(same.sum())
            total += kernel.sum()
            count += kernel.numel()
        return total / count


def as_kadtk(reference: Tensor, generated: Tensor) -> Tensor:
    """Returns the distance as the package kadtk computes it, over all pairs of rows.

    The bandwidth is the median distance of two generated rows. The expectation depends on the number of clips if a clip
    has several rows.

    Args:
        reference: the rows of real sound, (n, d).
        generated: the rows of generated sound, (m, d).

    Raises:
        NoValueError: if there are fewer than two rows, or half of the pairs of generated rows are identical.
    """
    return KernelDistance(reference, bandwidth=median_distance(generated))(generated)


def median_distance(rows: Tensor) -> float:
    """Returns the median Euclidean distance of two of the rows (n, d), of at most 10,000 evenly spaced ones."""
    rows = rows[:: -(-len(rows) // _MOST)].double()
    return float(torch.nn.functional.pdist(rows).median())


def _numbers(rows: Tensor, clips: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns the clip numbers of rows twice, for pairs within one side."""
    numbers = torch.arange(len(rows)) if clips is None else clips
    return numbers, numbers


def _refuse_single(rows: Tensor, clips: Tensor | None) -> None:
    if (found := len(rows) if clips is None else len(clips.unique())) < 2:
        raise NoValueError(
            f"a kernel distance needs two clips on each side, but one side has {found}; score more clips"
        )


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Returns the squared distances, (n, m), of rows (n, d) and (m, d)."""
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    return torch.addmm(norms, x, y.mT, alpha=-2).clamp_(min=0)
