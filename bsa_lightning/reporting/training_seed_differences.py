"""Paired differences between systems over training seeds, with intervals: do systems differ when trained again?"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR, crossed_interval
from bsa_lightning.evaluation.system_name import DDIM_NAME
from bsa_lightning.reporting.best_rivals import is_rival
from bsa_lightning.reporting.metric_titles import title_of
from bsa_lightning.reporting.results import Result, crossed

HEADER = ["System", "Less", "Steps", "Metric", "Difference", "95 % interval", "Training seeds", "Sampling seeds"]
NOTE = (
    "Differences between runs of the same training seed, on the same captions and noise. The interval is over training"
    " and sampling seeds together (over training seeds alone where there is one sampling seed), and * marks where it"
    " excludes 0. It covers the expected difference in at least 95 % of repetitions, and is wider than need be, up to"
    " 99.6 %, where both kinds of seeds matter. All pairs are in differences.csv."
)
BASELINE = "bsa"
_EXACT = {"trajectory_error"}
"""Metrics in which the teacher has no error, so that students are not compared with it."""


@dataclass(frozen=True)
class TrainingSeedDifference:
    """A metric of one system less that of another: the mean over seeds, with its 95 % interval.

    Args:
        first: the one system.
        second: the other system.
        metric: the metric.
        mean: the mean difference over training and sampling seeds.
        half_width: the half width of its 95 % interval over both kinds of seeds.
        num_training_seeds: the number of training seeds.
        num_sampling_seeds: the number of sampling seeds.
    """

    first: Result
    second: Result
    metric: str
    mean: float
    half_width: float
    num_training_seeds: int
    num_sampling_seeds: int

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the interval."""
        return self.mean - self.half_width, self.mean + self.half_width

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval has a width, and does not contain zero."""
        return abs(self.mean) > self.half_width > 0


def differences(results: Sequence[Result]) -> list[TrainingSeedDifference]:
    """Returns the differences between trained systems of equal steps, from their rivals, and from the full teacher."""
    trained = [result for result in results if result.training_seeds]
    teachers = [result for result in results if result.model == "teacher"]
    full = max(
        (teacher for teacher in teachers if teacher.sampler == DDIM_NAME),
        key=lambda teacher: (teacher.num_steps, teacher.nfe),
        default=None,
    )
    pairs = [(first, second) for first, second in combinations(trained, 2) if first.num_steps == second.num_steps]
    found = [
        _difference(first, second, metric)
        for first, second in pairs
        for metric in first.metrics
        if metric in second.metrics
    ]
    found += [
        _difference(student, teacher, metric)
        for student in trained
        for teacher in teachers
        if teacher is not full and is_rival(student, teacher)
        for metric in student.metrics
        if metric in teacher.metrics
    ]
    if full is not None:
        found += [
            _difference(result, full, metric)
            for result in trained
            for metric in result.metrics
            if metric in full.metrics and metric not in _EXACT
        ]
    return [difference for difference in found if difference is not None]


def cells(found: Sequence[TrainingSeedDifference]) -> list[list[str]]:
    """Returns rows of text under ``HEADER``: differences from BSA if it is there (else all), rivals and full teacher.

    Differences from rivals are shown for the trajectory error alone; the file has those of all metrics.
    """
    has_baseline = any(BASELINE in (d.first.weighting, d.second.weighting) for d in found)
    rows = []
    for difference in found:
        one = difference
        if one.first.weighting == BASELINE != one.second.weighting and one.second.model != "teacher":
            one = _swapped(one)
        if has_baseline and one.second.weighting != BASELINE and one.second.model != "teacher":
            continue
        if is_rival(one.first, one.second) and one.metric != TRAJECTORY_ERROR:
            continue
        steps = str(one.first.num_steps)
        if one.second.num_steps != one.first.num_steps:
            steps += f" to {one.second.num_steps}"
        rows.append(
            [
                one.first.name,
                one.second.name,
                steps,
                title_of(one.metric),
                f"{one.mean:+.3g}{' *' if one.excludes_zero else ''}",
                "{:+.3g} to {:+.3g}".format(*one.interval),
                str(one.num_training_seeds),
                str(one.num_sampling_seeds),
            ]
        )
    return rows


def comma_separated(found: Sequence[TrainingSeedDifference]) -> str:
    """Returns all differences as CSV, with unrounded numbers."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ["first", "second", "num_steps", "second_num_steps", "metric", "difference", "low", "high"]
    writer.writerow([*names, "training_seeds", "sampling_seeds"])
    for d in found:
        systems = [d.first.name, d.second.name, d.first.num_steps, d.second.num_steps]
        numbers = [f"{number:.6g}" for number in (d.mean, *d.interval)]
        writer.writerow([*systems, d.metric, *numbers, d.num_training_seeds, d.num_sampling_seeds])
    return buffer.getvalue()


def _difference(first: Result, second: Result, metric: str) -> TrainingSeedDifference | None:
    """Returns a difference over common seeds; ``None`` with fewer than two training or no common sampling seeds."""
    ours, theirs = first.values[metric], second.values[metric]
    if not second.training_seeds:  # the same model is compared with all trainings
        theirs = {(t, s): value for t in first.training_seeds for (_, s), value in theirs.items()}
    rows = crossed({seeds: ours[seeds] - theirs[seeds] for seeds in ours.keys() & theirs.keys()})
    if len(rows) < 2 or not rows[0]:
        return None
    return TrainingSeedDifference(first, second, metric, *crossed_interval(rows), len(rows), len(rows[0]))


def _swapped(d: TrainingSeedDifference) -> TrainingSeedDifference:
    return replace(d, first=d.second, second=d.first, mean=-d.mean)
