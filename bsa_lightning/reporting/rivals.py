"""The best rival of each student, and whether the student is told apart from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR, three_digits
from bsa_lightning.evaluation.system_name import compete
from bsa_lightning.reporting.results import Result

_UNKNOWN = (math.nan, math.nan)


class Match(NamedTuple):
    """A student beside the best of its rivals of some number of evaluations."""

    student: Result
    rival: Result
    verdict: str
    """"better" or "worse" where the student's interval lies apart from the rival's, else "not told apart"."""


def matches(results: Sequence[Result], metric: str, *, higher_is_better: bool) -> list[Match]:
    """Each student beside its best rival of as many evaluations, and beside its best one of more, in their order.

    A rival is an undistilled teacher at the student's steps or its evaluations. The teacher that errors are measured
    from, whose own error is 0, is none.
    """
    sign = -1 if higher_is_better else 1
    teachers = [r for r in results if r.model == "teacher" and r.metrics.get(TRAJECTORY_ERROR, _UNKNOWN)[0] != 0]
    found = []
    for student in (result for result in results if result.model == "student" and metric in result.metrics):
        rivals = [rival for rival in teachers if metric in rival.metrics and is_rival(student, rival)]
        equal, more = ([r for r in rivals if (r.nfe > student.nfe) == is_more] for is_more in (False, True))
        for some in filter(None, (equal, more)):
            rival = min(some, key=lambda result: sign * three_digits(result.metrics[metric][0]))
            found.append(Match(student, rival, _verdict(student.metrics[metric], rival.metrics[metric], sign)))
    return found


def is_rival(student: Result, rival: Result) -> bool:
    """Whether ``rival`` is an undistilled teacher at the student's steps or evaluations, of as many or more."""
    sizes = {"student_steps": student.num_steps, "student_nfe": student.nfe}
    return (
        rival.model == "teacher"
        and rival.nfe >= student.nfe
        and compete(**sizes, rival_steps=rival.num_steps, rival_nfe=rival.nfe)
    )


def _verdict(ours: tuple[float, float], theirs: tuple[float, float], sign: int) -> str:
    """Of mean and half width; a half width that is not known (NaN) tells nothing apart."""
    less = sign * (ours[0] - theirs[0])
    if not abs(less) > ours[1] + theirs[1]:
        return "not told apart"
    return "better" if less < 0 else "worse"
