"""``scores.csv``: one row a model, step count and repeat; and the intervals over repeats."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import whole
from bsa_lightning.common.lists import read_csv
from bsa_lightning.evaluation.system_name import DDIM_NAME, SystemName

TRAJECTORY_ERROR = "trajectory_error"
"""The metric that leads: how far a system lands from the guided teacher at its full steps, from the same noise."""


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
    sampler: str = DDIM_NAME

    @property
    def key(self) -> tuple[str, ...]:
        """What tells this row from every other, before it is measured."""
        return tuple(str(getattr(self, name)) for name in KEY)

    @property
    def system(self) -> SystemName:
        """What the system is called."""
        return SystemName.of(vars(self))


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
        """All rows as text, in the order in which they were written; empty where there is no file.

        Raises:
            UserError: naming the line, if a cell is not what :meth:`append` would have written, or two rows are of the
                same system and repeat.
        """
        if not self.path.exists():
            return []
        lines: dict[tuple[str, ...], int] = {}
        rows = read_csv(self.path, [name for name in COLUMNS if name != "sampler"], must_end=True)
        for line, row in rows:
            row.setdefault("sampler", DDIM_NAME)
            for name, value in row.items():
                if not _is_valid(name, value):
                    raise UserError(f"{self.path} line {line} has {value!r} as its {name}; {_REMEDY}")
            if (first := lines.setdefault(_key(row), line)) != line:
                raise UserError(f"{self.path} has the same system and repeat in lines {first} and {line}; {_REMEDY}")
        return [row for _, row in rows]

    def keys(self) -> set[tuple[str, ...]]:
        """The systems and repeats that are scored already."""
        return {_key(row) for row in self.rows()}

    def append(self, score: Score) -> None:
        """Adds a row, or replaces the one of the same system and repeat."""
        new = {name: str(getattr(score, name)) for name in COLUMNS}
        new |= {name: f"{value:.9g}" for name, value in score.metrics.items()}
        rows = [row for row in self.rows() if _key(row) != score.key] + [new]
        columns = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
        with whole(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)


_REMEDY = "correct it, or delete the file and run lightning test again"
_LARGEST = 1e100
"""Of a metric; larger ones would not add up."""


def _is_valid(name: str, value: str) -> bool:
    """Whether a cell of a column may be read: counts, a scale and finite metrics are numbers, names are text."""
    match name:
        case "model":
            return bool(value)
        case "weighting" | "guidance" | "sampler":
            return True
        case "round" | "num_steps" | "nfe" | "seed" | "num_clips":
            return re.fullmatch(r"\d{1,18}", value, flags=re.ASCII) is not None
        case "guidance_scale":
            return bool(value) and finite(value) is not None and float(value) >= 0
        case _:  # a metric, which not every system has
            return not value or finite(value) is not None


def finite(text: str) -> float | None:
    """The number in a cell; None if there is none, or none that can be added to others."""
    try:
        number = math.nan if "_" in text else float(text)  # Python reads 1_0 as 10
    except ValueError:
        return None
    return number if abs(number) < _LARGEST else None


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval (Student's t); the half width of one value is not known, NaN.

    Of five distances it covers 91 to 92 % where some clips are much louder than others (``experiments/coverage``).
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)


def crossed_interval(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval, where each of T trainings is sampled with the same S seeds.

    With y[t, s] = mu + a[t] + b[s] + e[t, s], the mean squares MA of trainings, MB of sampling seeds and ME of the rest
    give the variance of the mean, (MA + MB - ME) / (T S) in expectation. Each has few degrees of freedom, so squares of
    Student's quantiles stand before them: the square of the half width is (q_A MA + q_B MB - min(q_A, q_B) ME) / (T S),
    and never less than with MA alone or MB alone. It covers 95 % where one source of variance rules, and more, up to
    99.6 %, where several are alike (``experiments/coverage``). Degrees of freedom by Satterthwaite's formula would give
    narrower intervals, which cover 90 % at T = 2 and S = 5.

    Args:
        values: T rows of S numbers. One row, or one number a row, gives the interval of :func:`interval`: over sampling
            seeds for this one training, or over trainings for this one sampling seed.
    """
    import numpy as np
    from scipy.stats import t

    y = np.asarray(values, dtype=np.float64)
    if min(y.shape) == 1:
        return interval(y.ravel().tolist())
    mean, degrees = float(y.mean()), np.asarray(y.shape) - 1
    trained, sampled = y.mean(1, keepdims=True) - mean, y.mean(0, keepdims=True) - mean
    rest = float(((y - mean - trained - sampled) ** 2).sum() / degrees.prod())
    squares = np.asarray([(trained**2).sum() * y.shape[1], (sampled**2).sum() * y.shape[0]]) / degrees
    quantiles = t.ppf(0.975, degrees) ** 2
    parts = quantiles * squares
    return mean, math.sqrt(max(*parts, parts.sum() - quantiles.min() * rest) / y.size)
