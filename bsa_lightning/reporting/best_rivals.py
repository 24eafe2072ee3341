"""The best rival of each student, and whether their intervals tell the two apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from bsa_lightning.evaluation.rivals import best_of, is_comparable
from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR
from bsa_lightning.evaluation.system_name import DDIM_NAME
from bsa_lightning.reporting.results import Result

_FRECHET = ("fd_", "fad_")
_UNKNOWN = (math.nan, math.nan)


class Match(NamedTuple):
    """A student, and the best of its rivals among those of as many network evaluations, or among those of more."""

    student: Result
    rival: Result
    verdict: str
    """"better" or "worse" where the intervals of student and rival do not overlap, else "not told apart"."""


def matches(results: Sequence[Result], metric: str, *, higher_is_better: bool) -> list[Match]:
    """Returns each student with its best rival of as many evaluations, and with its best rival of more.

    A rival is an undistilled teacher of as many steps or network evaluations. The teacher that trajectory errors are
    measured from, whose own error is 0, is not a rival.

    Args:
        results: all systems of a report.
        metric: the metric that decides which rival is the best.
        higher_is_better: whether the metric is better where it is higher.
    """
    sign = -1 if higher_is_better else 1
    teachers = [r for r in results if r.model == "teacher" and r.metrics.get(TRAJECTORY_ERROR, _UNKNOWN)[0] != 0]
    found = []
    for student in (r for r in results if r.model == "student" and metric in r.metrics and _is_judged(r, metric)):
        rivals = [rival for rival in teachers if metric in rival.metrics and is_rival(student, rival)]
        equal, more = ([r for r in rivals if (r.nfe > student.nfe) == is_more] for is_more in (False, True))
        best = [best_of(some, lambda result: sign * result.metrics[metric][0]) for some in (equal, more)]
        found += [
            Match(student, rival, _verdict(student.metrics[metric], rival.metrics[metric], sign))
            for rival in best
            if rival is not None
        ]
    return found


def worse_than_teacher(results: Sequence[Result]) -> list[tuple[Result, list[str]]]:
    """Returns each student that is worse than its teacher in as many steps of DDIM, and by which metrics.

    Compared are the trajectory error and the Frechet distances, where the intervals do not overlap: distillation should
    have made them better, though the guided teacher takes two evaluations a step.

    Args:
        results: all systems of a report.
    """
    found = []
    for student in (result for result in results if result.model == "student"):
        teachers = [
            r
            for r in results
            if (r.model, r.sampler, r.num_steps, r.guidance_scale)
            == ("teacher", DDIM_NAME, student.num_steps, student.guidance_scale)
        ]
        names = [name for name in student.metrics if name == TRAJECTORY_ERROR or name.startswith(_FRECHET)]
        names = [name for name in names if _is_judged(student, name)]
        # In its full number of steps, the teacher is what trajectory errors are measured from.
        teachers = [r for r in teachers if r.metrics.get(TRAJECTORY_ERROR, _UNKNOWN)[0] != 0]
        worse = [
            name
            for name in names
            if any(_verdict(student.metrics[name], r.metrics.get(name, _UNKNOWN), 1) == "worse" for r in teachers)
        ]
        found += [(student, worse)] if worse else []
    return found


def is_rival(student: Result, rival: Result) -> bool:
    """Returns whether this is an undistilled teacher of as many steps or evaluations, and of no fewer evaluations."""
    return rival.model == "teacher" and rival.nfe >= student.nfe and is_comparable(student, rival)


def _is_judged(student: Result, metric: str) -> bool:
    """Returns whether a metric judges a student: new noise in every step leaves the teacher's trajectory on purpose."""
    return metric != TRAJECTORY_ERROR or student.sampler == DDIM_NAME


def _verdict(ours: tuple[float, float], theirs: tuple[float, float], sign: int) -> str:
    """Returns the verdict on two pairs of mean and half width; an unknown half width (NaN) tells nothing apart."""
    less = sign * (ours[0] - theirs[0])
    if not abs(less) > ours[1] + theirs[1]:
        return "not told apart"
    return "better" if less < 0 else "worse"
