"""The kernel audio distance (Chung et al. 2025): an unbiased squared maximum mean discrepancy, times 100.

Its expectation does not depend on the number of clips, so it is the one to read when there are few; it may be negative.
That holds over pairs of rows from different clips: rows of one clip are alike, and so are two clips of one caption.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError

SCALE = 100.0
_CHUNK = 2048
_MOST = 10_000


class NoValueError(UserError):
    """A measure that has no value for some sound, whatever the others have."""


class KernelDistance:
    """100 MMD^2 of generated rows from one reference, under exp(-|x - y|^2 / (2 bandwidth^2)), in float64.

    Three means of kernels make it up: within the reference, within the generated rows, and between the two. Each is
    over pairs of rows from clips of different numbers (Gretton et al. 2012, Lemma 6), so that a clip beside itself,
    which has several rows, and a clip beside the recording of its own caption, which has its number, do not count.

    Args:
        reference: rows (n, d) of real sound.
        clips: the number of the clip that each row is of, (n,); ``None`` takes every row for a clip of its own.
        bandwidth: ``None`` is the median distance of two reference rows, as the paper has it.

    Raises:
        NoValueError: if there are fewer than two clips, or half of the pairs of rows are alike.
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
        """The distance of rows (m, d), a scalar.

        Args:
            generated: rows (m, d).
            clips: the number of the clip that each row is of, (m,); the recording of the same caption has the same
                number in the reference. ``None`` takes every row for a clip of its own, without a recording.

        Raises:
            NoValueError: if there are fewer than two clips.
        """
        x, y = self._reference, generated.double() - self._centre
        _refuse_single(y, clips)
        within = self._mean(y, y, _numbers(y, clips))
        paired = None if clips is None or self._clips is None else (self._clips, clips)
        return SCALE * (self._within + within - 2 * self._mean(x, y, paired))

    def _mean(self, x: Tensor, y: Tensor, clips: tuple[Tensor, Tensor] | None) -> Tensor:
        """The mean kernel of a row of ``x`` and one of ``y``, of clips whose numbers differ."""
        total, count = torch.zeros((), dtype=x.dtype, device=x.device), 0
        for first in range(0, len(x), _CHUNK):
            kernel = (-_squares(x[first : first + _CHUNK], y) / (2 * self.bandwidth**2)).exp_()
            if clips is not None:
                same = clips[0][first : first + _CHUNK, None] == clips[1]
                kernel.masked_fill_(same, 0.0)
                count -= int(same.sum())
            total += kernel.sum()
            count += kernel.numel()
        return total / count


def as_kadtk(reference: Tensor, generated: Tensor) -> Tensor:
    """The distance as the package kadtk computes it: over all pairs of rows, with the generated rows' median distance.

    Its expectation depends on the number of clips where a clip has several rows.

    Args:
        reference: rows (n, d) of real sound.
        generated: rows (m, d).

    Raises:
        NoValueError: if there are fewer than two rows, or half of the pairs of generated rows are alike.
    """
    return KernelDistance(reference, bandwidth=median_distance(generated))(generated)


def median_distance(rows: Tensor) -> float:
    """The median Euclidean distance of two of the rows (n, d); beyond 10 000 rows, of that many, evenly spaced."""
    rows = rows[:: -(-len(rows) // _MOST)].double()
    return float(torch.nn.functional.pdist(rows).median())


def _numbers(rows: Tensor, clips: Tensor | None) -> tuple[Tensor, Tensor]:
    """The clip numbers of rows beside themselves."""
    numbers = torch.arange(len(rows)) if clips is None else clips
    return numbers, numbers


def _refuse_single(rows: Tensor, clips: Tensor | None) -> None:
    if (found := len(rows) if clips is None else len(clips.unique())) < 2:
        raise NoValueError(
            f"a kernel distance needs two clips on each side, but one side has {found}; score more clips"
        )


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (n, m) of rows (n, d) and (m, d)."""
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    return torch.addmm(norms, x, y.mT, alpha=-2).clamp_(min=0)
