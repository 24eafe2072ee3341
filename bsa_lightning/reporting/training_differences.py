"""Do systems differ when they are trained again? Paired differences over training seeds, with intervals."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from bsa_lightning.evaluation.scores import interval
from bsa_lightning.reporting.run_folder import Result
from bsa_lightning.reporting.table import TITLES

HEADER = ["System", "Less", "Steps", "Metric", "Difference", "95 % bootstrap", "95 % Student's t", "Training seeds"]
NOTE = (
    "Differences between runs of the same training seed, on the same captions and noise. The bootstrap resamples"
    " training seeds and sampling seeds; of few seeds it is too narrow, so Student's t over training seeds stands"
    " beside it, and * marks where both exclude 0. All pairs are in differences.csv."
)
BASELINE = "bsa"
RESAMPLES = 10_000
_EXACT = {"trajectory_error"}
"""Metrics in which the teacher has no error, so that nothing is compared with it."""


@dataclass(frozen=True)
class Difference:
    """A metric of one system less that of another: means over seeds, with both intervals."""

    first: Result
    second: Result
    metric: str
    mean: float
    bootstrap: tuple[float, float]
    student_t: tuple[float, float]
    num_seeds: int

    @property
    def is_one(self) -> bool:
        """Whether both intervals exclude zero."""
        return all(low > 0 or high < 0 for low, high in (self.bootstrap, self.student_t))


def differences(results: Sequence[Result]) -> list[Difference]:
    """Of all pairs of trained systems at equal steps, and of each and its teacher at the teacher's full steps."""
    trained = [result for result in results if result.training_seeds]
    teachers = [result for result in results if result.model == "teacher"]
    full = max(teachers, key=lambda result: result.num_steps, default=None)
    pairs = [(first, second) for first, second in combinations(trained, 2) if first.num_steps == second.num_steps]
    found = [
        _difference(first, second, metric)
        for first, second in pairs
        for metric in first.metrics
        if metric in second.metrics
    ]
    if full is not None:
        found += [
            _difference(result, full, metric)
            for result in trained
            for metric in result.metrics
            if metric in full.metrics and metric not in _EXACT
        ]
    return [difference for difference in found if difference is not None]


def cells(found: Sequence[Difference]) -> list[list[str]]:
    """Rows under ``HEADER``: against BSA where it is there (else all), and against the teacher."""
    has_baseline = any(BASELINE in (d.first.weighting, d.second.weighting) for d in found)
    rows = []
    for difference in found:
        one = difference
        if one.first.weighting == BASELINE != one.second.weighting and one.second.model != "teacher":
            one = _swapped(one)
        if has_baseline and one.second.weighting != BASELINE and one.second.model != "teacher":
            continue
        steps = str(one.first.num_steps)
        if one.second.num_steps != one.first.num_steps:
            steps += f" to {one.second.num_steps}"
        rows.append(
            [
                one.first.name,
                one.second.name,
                steps,
                TITLES.get(one.metric, one.metric),
                f"{one.mean:+.3g}{' *' if one.is_one else ''}",
                *(f"{low:+.3g} to {high:+.3g}" for low, high in (one.bootstrap, one.student_t)),
                str(one.num_seeds),
            ]
        )
    return rows


def comma_separated(found: Sequence[Difference]) -> str:
    """All pairs, every number in full."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    intervals = [f"{kind}_{end}" for kind in ("bootstrap", "student_t") for end in ("low", "high")]
    writer.writerow(["first", "second", "num_steps", "second_num_steps", "metric", "difference", *intervals, "seeds"])
    for d in found:
        numbers = [f"{number:.6g}" for number in (d.mean, *d.bootstrap, *d.student_t)]
        writer.writerow(
            [d.first.name, d.second.name, d.first.num_steps, d.second.num_steps, d.metric, *numbers, d.num_seeds]
        )
    return buffer.getvalue()


def _difference(first: Result, second: Result, metric: str) -> Difference | None:
    """On the sampling seeds that all runs have; none where fewer than two training seeds pair the two."""
    ours, theirs = first.values[metric], second.values[metric]
    if not second.training_seeds:  # one model for all of them
        theirs = {(t, s): value for t in first.training_seeds for (_, s), value in theirs.items()}
    trained = sorted({t for t, _ in ours} & {t for t, _ in theirs})
    if len(trained) < 2:
        return None
    sampled = sorted(
        set.intersection(*({s for t, s in found if t == seed} for found in (ours, theirs) for seed in trained))
    )
    if not sampled:
        return None
    rows = [[ours[t, s] - theirs[t, s] for s in sampled] for t in trained]
    mean, half_width = interval([math.fsum(row) / len(row) for row in rows])
    student_t = (mean - half_width, mean + half_width)
    return Difference(first, second, metric, mean, bootstrap(rows), student_t, len(trained))


def bootstrap(rows: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of (training seeds x sampling seeds), both resampled."""
    import numpy as np

    values, draws = np.asarray(rows), np.random.default_rng(0)
    trained, sampled = (draws.multinomial(size, [1 / size] * size, RESAMPLES) / size for size in values.shape)
    low, high = np.quantile(np.einsum("bt,ts,bs->b", trained, values, sampled), [0.025, 0.975])
    return float(low), float(high)


def _swapped(d: Difference) -> Difference:
    (b_low, b_high), (t_low, t_high) = d.bootstrap, d.student_t
    return Difference(d.second, d.first, d.metric, -d.mean, (-b_high, -b_low), (-t_high, -t_low), d.num_seeds)
