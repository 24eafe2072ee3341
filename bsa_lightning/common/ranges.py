"""Checks of the numbers that a user sets, with uniform messages."""

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
    """Checks that a value is a finite number within its range. A limit of ``None`` is not checked.

    Args:
        name: the name of the setting, as the user writes it.
        value: the value of the setting, of any type.
        whole: whether the number must be an integer; ``True`` and ``False`` are not integers here.
        at_least: the lower limit, which is valid itself.
        above: the lower limit, which is not valid itself.
        at_most: the upper limit, which is valid itself.
        below: the upper limit, which is not valid itself.
        advice: an instruction for the user, appended to the message after a semicolon.

    Raises:
        UserError: if the value is not valid; the message gives the name, the value and the range.
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
    """Checks that a seed is an integer from 0 to 2^63 - 1; a negative seed would draw the numbers of a large one.

    Raises:
        UserError: if it is not; the message gives the name and the value.
    """
    if not _is_number(value, whole=True) or not 0 <= value < 2**63:
        raise UserError(f"{name} is {value!r}, but must be a whole number from 0 to 2^63 - 1")


def _is_number(value: object, *, whole: bool) -> bool:
    kind = numbers.Integral if whole else numbers.Real
    return not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(value)
