"""How often intervals cover what they are about, and how that is said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NOMINAL, WIDE = 0.95, 0.97
"""What an interval promises, and from where it is called wider than that."""


@dataclass(frozen=True)
class Coverage:
    """What became of one kind of interval in one case."""

    interval: str
    case: str
    repeats: int
    covered: float
    """Share of the repeats whose interval holds the true value."""
    width: float
    """Mean half width over 1.96 standard deviations of the estimate: 1 is what a known variance would give."""

    @property
    def error(self) -> float:
        """The binomial standard deviation of ``covered``, were it 95 %."""
        return math.sqrt(NOMINAL * (1 - NOMINAL) / self.repeats)

    @property
    def verdict(self) -> str:
        """Whether it is 95 % within three errors, since there are over a hundred cases; else "wider" or "BELOW"."""
        if self.covered < NOMINAL - 3 * self.error:
            return "BELOW"
        return "wider" if self.covered > WIDE else "95 %"

    def row(self) -> dict[str, str]:
        """For a table."""
        numbers = {"covered": self.covered, "error": self.error, "width": self.width}
        texts = {name: f"{number:.4f}" for name, number in numbers.items()}
        return (
            {"interval": self.interval, "case": self.case, "repeats": str(self.repeats)}
            | texts
            | {"verdict": self.verdict}
        )


def tally(
    interval: str, case: str, found: Sequence[tuple[float, float]], *, truth: float, deviation: float | None = None
) -> Coverage:
    """Counts the (mean, half width) that hold ``truth``.

    Args:
        interval: how the kind of interval is called.
        case: what it was taken of.
        found: one pair a repeat.
        truth: the expectation of the means.
        deviation: the standard deviation of the means; ``None`` takes that of ``found`` about ``truth``.
    """
    covered = sum(abs(mean - truth) <= half_width for mean, half_width in found) / len(found)
    if deviation is None:
        deviation = math.sqrt(math.fsum((mean - truth) ** 2 for mean, _ in found) / len(found))
    half_width = math.fsum(half_width for _, half_width in found) / len(found)
    return Coverage(interval, case, len(found), covered, half_width / (1.96 * deviation))
