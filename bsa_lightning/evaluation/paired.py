"""Is one system better than another on these clips? Differences under resampling of the clips, the same for both."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from bsa_lightning.data.order import seeded
from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.kernel import NoValueError
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.row_store import ClipRows, mean
from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR
from bsa_lightning.files import whole

FEWEST = 20
"""Clips from which halves say how much a distance varies."""


class Difference(NamedTuple):
    """A metric of one system less that of another, with its 95 % interval over clips."""

    difference: float
    low: float
    high: float
    num_clips: int


def paired_difference(
    measure: Callable[[ClipRows], float],
    first: ClipRows,
    second: ClipRows,
    *,
    num_resamples: int = 100,
    seed: int = 0,
) -> Difference:
    """``measure`` of ``first`` less that of ``second``, over the clips of both.

    Resamples are random halves of the clips, without replacement: their spread is that of the whole
    (a delete-half jackknife), and unlike in a bootstrap no clip comes twice, which would bias a Frechet distance of
    fewer rows than dimensions. The interval lies around the difference of all clips, with the quantile of Student's t
    whose degrees of freedom are those of a spread known from n clips and ``num_resamples`` halves. It covers 95 %,
    less where a few clips make the difference (86 % of Frechet distances then), and more where the second order of a
    distance in the clips matters, as between two systems that differ in nothing (``experiments/coverage``).

    Args:
        measure: of some clips, such as ``Measures.frechet``.
        first: rows of one system.
        second: rows of the other, from the same captions and noise.
        num_resamples: halves drawn, at least 2.
        seed: of the draws.

    Raises:
        UserError: if the systems were scored on other clips, or on too few.
    """
    from scipy.stats import t

    n = len(first)
    if not torch.equal(first.clips, second.clips):
        raise UserError("the two systems were scored on other clips, so nothing pairs them; score them alike")
    if n < FEWEST:
        raise UserError(f"a paired difference needs {FEWEST} clips, but there are {n}; score more")
    m = n // 2
    halves = []
    for draw in range(num_resamples):
        at = torch.randperm(n, generator=seeded(seed, draw))[:m].sort().values
        halves.append(measure(first.at(at)) - measure(second.at(at)))
    spread = float(torch.tensor(halves, dtype=torch.float64).std()) * math.sqrt(m / (n - m))
    half_width = float(t.ppf(0.975, 1 / (1 / (n - 1) + 1 / (num_resamples - 1)))) * spread
    difference = measure(first) - measure(second)
    return Difference(difference, difference - half_width, difference + half_width, n)


def compare(
    measures: Sequence[Measures],
    first: Mapping[str, ClipRows],
    second: Mapping[str, ClipRows],
    *,
    num_resamples: int = 100,
) -> dict[str, Difference]:
    """:func:`paired_difference` in every metric that has a value, of every embedding with rows of both, by column.

    The trajectory error, which is a mean over clips, comes first where both have it.
    """
    asked: list[tuple[str, str, Callable[[ClipRows], float]]] = [(TRAJECTORY_ERROR, TRAJECTORY_ERROR, mean)]
    for of_embedding in measures:
        name = of_embedding.embedding.name
        asked += [(name, *item) for item in of_embedding.by_name(first[name]).items()] if name in first else []
    found = {}
    for name, column, measure in asked:
        if name in first and name in second:
            with suppress(NoValueError):
                found[column] = paired_difference(measure, first[name], second[name], num_resamples=num_resamples)
    return found


class PairedRow(NamedTuple):
    """A row of ``differences.csv``: ``first`` less ``second`` in one metric, on one sampling seed."""

    first: str
    second: str
    seed: int
    metric: str
    found: Difference
    best_rival: bool
    """Whether ``second`` is the strongest system that ``first`` has to beat."""


def write_differences(path: Path, rows: Iterable[PairedRow]) -> None:
    """Writes ``differences.csv``; ``best_rival`` is "yes" or empty."""
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["first", "second", "seed", "metric", *Difference._fields, "best_rival"])
        for *names, found, best_rival in rows:
            numbers = [f"{number:.9g}" for number in found[:3]]
            writer.writerow([*names, *numbers, found.num_clips, "yes" if best_rival else ""])
