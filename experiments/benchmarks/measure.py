"""What all benchmarks share: seconds, and a row of the table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """A line of the table: what was measured, in several repeats, over what, and the goal if there is one."""

    what: str
    values: Sequence[float]
    over: str
    goal: str = ""

    def __str__(self) -> str:
        middle, low, high = (_digits(f(self.values)) for f in (statistics.median, min, max))
        return f"| {self.what} | {middle} | {low} to {high} | {self.over} | {self.goal} |"


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def typical_seconds(function: Callable[[], object], calls: int) -> float:
    """The median of so many calls in a row."""
    return statistics.median(seconds(function) for _ in range(calls))


def _digits(value: float) -> str:
    if value < 1e-3:
        return f"{value:.1e}" if value else "0"
    return f"{value:.3f}" if value < 100 else f"{value:.0f}"
