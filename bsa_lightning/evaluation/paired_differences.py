"""Is one system better than another on these clips? Differences with intervals, under resampling of the clips."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.order import seeded
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.metrics.kernel import NoValueError
from bsa_lightning.evaluation.row_store import ClipRows, mean
from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR

FEWEST = 20
"""The number of clips from which the spread of halves tells how much a distance varies."""


class ClipDifference(NamedTuple):
    """A metric of one system less that of another, with its 95 % interval over clips."""

    difference: float
    low: float
    high: float
    num_clips: int


class Resampled(NamedTuple):
    """A measure of one system's clips, and of random halves of them."""

    clips: Tensor
    """The numbers of the clips, (n,)."""
    value: float
    """The measure of all clips."""
    halves: Tensor
    """The measure of each half, (num_resamples,), float64; the halves are the same for all systems of these clips."""


def resample(
    measure: Callable[[ClipRows], float], rows: ClipRows, *, num_resamples: int = 100, seed: int = 0
) -> Resampled:
    """Returns a measure of all clips of a system, and of random halves of them, drawn without replacement.

    Args:
        measure: a function of the rows of some clips, such as ``Measures.frechet``.
        rows: the rows of one system.
        num_resamples: the number of halves to draw, at least 2.
        seed: the seed of the draws.

    Raises:
        UserError: if there are fewer than 20 clips.
    """
    if (n := len(rows)) < FEWEST:
        raise UserError(f"a paired difference needs {FEWEST} clips, but there are {n}; score more")
    places = [torch.randperm(n, generator=seeded(seed, draw))[: n // 2].sort().values for draw in range(num_resamples)]
    halves = torch.tensor([measure(rows.at(at)) for at in places], dtype=torch.float64)
    return Resampled(rows.clips, measure(rows), halves)


def paired_difference(first: Resampled, second: Resampled) -> ClipDifference:
    """Returns a measure of one system less that of another, for the same captions and noise, with its interval.

    The spread of random halves is that of the whole (a delete-half jackknife). Unlike in a bootstrap, no clip is drawn
    twice, which would bias a Frechet distance of fewer rows than dimensions. The interval lies around the difference of
    all clips; its half width is the spread times the quantile of Student's t, whose degrees of freedom are those of a
    spread that is estimated from n clips and that number of halves. It covers the expected difference in 95 % of
    repetitions, in fewer where a few clips make the difference (85 % for Frechet distances then), and in more where the
    second order of a distance in the clips matters, as between two systems that do not differ
    (``experiments/coverage``).

    Args:
        first: a measure of the first system.
        second: the same measure of the second system.

    Raises:
        UserError: if the systems were scored on different clips.
    """
    from scipy.stats import t

    if not torch.equal(first.clips, second.clips):
        raise UserError(
            "the two systems were scored on different clips, so that nothing pairs them; score both on the same"
        )
    n, num_resamples = len(first.clips), len(first.halves)
    m = n // 2
    spread = float((first.halves - second.halves).std()) * math.sqrt(m / (n - m))
    half_width = float(t.ppf(0.975, 1 / (1 / (n - 1) + 1 / (num_resamples - 1)))) * spread
    difference = first.value - second.value
    return ClipDifference(difference, difference - half_width, difference + half_width, n)


def resample_all(
    measures: Sequence[Measures], rows: Mapping[str, ClipRows], *, num_resamples: int = 100
) -> dict[str, Resampled]:
    """Returns :func:`resample` of every metric of a system by column; the trajectory error comes first.

    Metrics without a value are left out.

    Args:
        measures: the measures of each embedding.
        rows: the system's rows by name of the embedding, and its trajectory errors.
        num_resamples: the number of halves to draw, at least 2.
    """
    asked: list[tuple[str, str, Callable[[ClipRows], float]]] = [(TRAJECTORY_ERROR, TRAJECTORY_ERROR, mean)]
    for of_embedding in measures:
        name = of_embedding.embedding.name
        asked += [(name, *item) for item in of_embedding.by_name(rows[name]).items()] if name in rows else []
    found = {}
    for name, column, measure in asked:
        if name in rows:
            with suppress(NoValueError):
                found[column] = resample(measure, rows[name], num_resamples=num_resamples)
    return found


def compare(first: Mapping[str, Resampled], second: Mapping[str, Resampled]) -> dict[str, ClipDifference]:
    """Returns :func:`paired_difference` of two systems in every column that both have."""
    return {column: paired_difference(first[column], second[column]) for column in first if column in second}
