"""``scores.csv``: one row a model, step count and repeat; and the interval over repeats."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from bsa_lightning.files import whole


@dataclass(frozen=True)
class Score:
    """What one system got in one repeat. ``nfe`` are the network evaluations counted for one clip."""

    model: str
    weighting: str
    round: int
    num_steps: int
    guidance: str
    guidance_scale: float
    nfe: int
    seed: int
    num_clips: int
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, ...]:
        """What tells this row from every other, before it is measured."""
        return tuple(str(getattr(self, name)) for name in KEY)


COLUMNS = tuple(field_.name for field_ in fields(Score) if field_.name != "metrics")
KEY = tuple(name for name in COLUMNS if name != "nfe")


class ScoreFile:
    """The scores of a run; appended to row by row, each time whole.

    Args:
        path: of the CSV file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, str]]:
        """All rows as text, in the order in which they were written."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def keys(self) -> set[tuple[str, ...]]:
        """The systems and repeats that are scored already."""
        return {_key(row) for row in self.rows()}

    def append(self, score: Score) -> None:
        """Adds a row, or replaces the one of the same system and repeat."""
        new = {name: str(getattr(score, name)) for name in COLUMNS}
        new |= {name: f"{value:.9g}" for name, value in score.metrics.items()}
        rows = [row for row in self.rows() if _key(row) != score.key] + [new]
        columns = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
        with whole(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval (Student's t); the half width of one value is not known, NaN."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
