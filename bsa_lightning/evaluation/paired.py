"""Is one system better than another on these clips? Differences under resampling of the clips, the same for both."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write
from bsa_lightning.data.order import seeded
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.metrics.kernel import NoValueError
from bsa_lightning.evaluation.row_store import ClipRows, mean
from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR

FEWEST = 20
"""Clips from which halves say how much a distance varies."""


class ClipDifference(NamedTuple):
    """A metric of one system less that of another, with its 95 % interval over clips."""

    difference: float
    low: float
    high: float
    num_clips: int


class Resampled(NamedTuple):
    """A measure of one system's clips, and of random halves of them."""

    clips: Tensor
    """Numbers of the clips (n,)."""
    value: float
    """Of all clips."""
    halves: Tensor
    """Of each half (num_resamples,), float64; the same clips for every system of these clips."""


def resample(
    measure: Callable[[ClipRows], float], rows: ClipRows, *, num_resamples: int = 100, seed: int = 0
) -> Resampled:
    """``measure`` of all clips and of random halves, drawn without replacement.

    Args:
        measure: of some clips, such as ``Measures.frechet``.
        rows: of one system.
        num_resamples: halves drawn, at least 2.
        seed: of the draws.

    Raises:
        UserError: if there are too few clips.
    """
    if (n := len(rows)) < FEWEST:
        raise UserError(f"a paired difference needs {FEWEST} clips, but there are {n}; score more")
    places = [torch.randperm(n, generator=seeded(seed, draw))[: n // 2].sort().values for draw in range(num_resamples)]
    halves = torch.tensor([measure(rows.at(at)) for at in places], dtype=torch.float64)
    return Resampled(rows.clips, measure(rows), halves)


def paired_difference(first: Resampled, second: Resampled) -> ClipDifference:
    """A measure of one system less that of another, from the same captions and noise, over the clips of both.

    The spread of random halves is that of the whole (a delete-half jackknife), and unlike in a bootstrap no clip comes
    twice, which would bias a Frechet distance of fewer rows than dimensions. The interval lies around the difference of
    all clips, with the quantile of Student's t whose degrees of freedom are those of a spread known from n clips and so
    many halves. It covers 95 %, less where a few clips make the difference (85 % of Frechet distances then), and more
    where the second order of a distance in the clips matters, as between two systems that differ in nothing
    (``experiments/coverage``).

    Raises:
        UserError: if the systems were scored on other clips.
    """
    from scipy.stats import t

    if not torch.equal(first.clips, second.clips):
        raise UserError("the two systems were scored on other clips, so nothing pairs them; score them alike")
    n, num_resamples = len(first.clips), len(first.halves)
    m = n // 2
    spread = float((first.halves - second.halves).std()) * math.sqrt(m / (n - m))
    half_width = float(t.ppf(0.975, 1 / (1 / (n - 1) + 1 / (num_resamples - 1)))) * spread
    difference = first.value - second.value
    return ClipDifference(difference, difference - half_width, difference + half_width, n)


def resample_all(
    measures: Sequence[Measures], rows: Mapping[str, ClipRows], *, num_resamples: int = 100
) -> dict[str, Resampled]:
    """:func:`resample` of every metric that has a value, of every embedding with rows, by column.

    The trajectory error, which is a mean over clips, comes first.
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
    """:func:`paired_difference` in every column that both have."""
    return {column: paired_difference(first[column], second[column]) for column in first if column in second}


class PairedRow(NamedTuple):
    """A row of ``differences.csv``: ``first`` less ``second`` in one metric, on one sampling seed."""

    first: str
    second: str
    seed: int
    metric: str
    found: ClipDifference
    best_rival: bool
    """Whether ``second`` is the strongest system that ``first`` has to beat."""


def write_differences(path: Path, rows: Iterable[PairedRow]) -> None:
    """Writes ``differences.csv``; ``best_rival`` is "yes" or empty."""
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["first", "second", "seed", "metric", *ClipDifference._fields, "best_rival"])
        for *names, found, best_rival in rows:
            numbers = [f"{number:.9g}" for number in found[:3]]
            writer.writerow([*names, *numbers, found.num_clips, "yes" if best_rival else ""])
