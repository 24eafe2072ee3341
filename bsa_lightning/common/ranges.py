"""The range of a number that a user sets, checked in one way and said in one way."""

from __future__ import annotations

import math
import numbers
from typing import Any

from bsa_lightning.common.errors import UserError


def check_number(
    name: str,
    value: Any,  # noqa: ANN401 - whatever a user may write
    *,
    whole: bool = False,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    advice: str = "",
) -> None:
    """Refuses a value that is no finite number or lies outside its range.

    Args:
        name: the setting, as the user knows it.
        value: what it is set to.
        whole: whether only integers are valid; ``True`` and ``False`` are not integers.
        at_least: the lowest valid value.
        above: the largest value that is too low.
        at_most: the highest valid value.
        below: the smallest value that is too high.
        advice: what to do, appended after a semicolon.

    Raises:
        UserError: with the name, the value and the range.
    """
    if (
        _is_number(value, whole=whole)
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
        and (below is None or value < below)
    ):
        return
    limits = [("at least", at_least), ("above", above), ("at most", at_most), ("below", below)]
    said = " and ".join(f"{words} {limit:.15g}" for words, limit in limits if limit is not None)
    valid = ("a whole number" if whole else "a finite number") + (f", {said}" if said else "")
    raise UserError(f"{name} is {value!r}, but must be {valid}" + (f"; {advice}" if advice else ""))


def check_seed(name: str, value: Any) -> None:  # noqa: ANN401 - whatever a user may write
    """Refuses a seed outside of 0 to 2^63 - 1: a negative one would give the numbers of a large one.

    Raises:
        UserError: with the name and the value.
    """
    if not _is_number(value, whole=True) or not 0 <= value < 2**63:
        raise UserError(f"{name} is {value!r}, but must be a whole number from 0 to 2^63 - 1")


def _is_number(value: object, *, whole: bool) -> bool:
    kind = numbers.Integral if whole else numbers.Real
    return not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(value)
