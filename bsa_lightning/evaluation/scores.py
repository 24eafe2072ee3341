"""``scores.csv``, with a row for each system and sampling seed; and intervals over seeds."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write
from bsa_lightning.common.lists import read_csv
from bsa_lightning.evaluation.system_name import DDIM_NAME, SystemName
from bsa_lightning.models.provenance import PROGRESSIVE

TRAJECTORY_ERROR = "trajectory_error"
"""The main metric: the mean squared difference of final latents from those of the guided teacher at its full steps.

Both are sampled from the same noise and captions."""


@dataclass(frozen=True)
class Score:
    """The scores of one system with one sampling seed: a row of ``scores.csv``.

    Args:
        model: "teacher", "student", "reference", or "baseline-" and a name.
        weighting: the name of a student's weighting; empty for other systems.
        round: the round that made a student, from 1; 0 for other systems.
        num_steps: the number of steps of the sampler; 0 for the reference.
        guidance: the name of the mode of guidance, which is "outside" for undistilled models, empty for the reference.
        guidance_scale: the guidance scale that the system stands for.
        nfe: the number of network evaluations of a clip, as counted.
        seed: the seed of the sampling noise.
        num_clips: the number of clips that were scored.
        metrics: the value of each metric by its column.
        sampler: the name of the sampler.
        method: the name of a student's method of distillation; empty for other systems.
    """

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
    method: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """The cells that identify a row, which are known before the system is scored."""
        return tuple(str(getattr(self, name)) for name in KEY)

    @property
    def system(self) -> SystemName:
        """The name of the system."""
        return SystemName.of(vars(self))


_FIRST = ("model", "method")
COLUMNS = (*_FIRST, *(field_.name for field_ in fields(Score) if field_.name not in {*_FIRST, "metrics"}))
KEY = tuple(name for name in COLUMNS if name != "nfe")


class ScoreFile:
    """The file of a run's scores; each new row replaces the file as a whole.

    Args:
        path: the path of the CSV file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, str]]:
        """Returns all rows as text, in the order in which they were written; empty if there is no file.

        Raises:
            UserError: if a cell cannot have been written by :meth:`append`, or two rows are of the same system and
                seed.
        """
        if not self.path.exists():
            return []
        lines: dict[tuple[str, ...], int] = {}
        rows = read_csv(self.path, [name for name in COLUMNS if name not in _LATER], must_end=True)
        for line, row in rows:
            row.setdefault("sampler", DDIM_NAME)
            row.setdefault("method", PROGRESSIVE if row["weighting"] else "")
            for name, value in row.items():
                if not _is_valid(name, value):
                    raise UserError(f"{self.path} line {line} has {value!r} as its {name}; {_REMEDY}")
            if (first := lines.setdefault(_key(row), line)) != line:
                raise UserError(f"{self.path} has the same system and seed in lines {first} and {line}; {_REMEDY}")
        return [row for _, row in rows]

    def keys(self) -> set[tuple[str, ...]]:
        """Returns the keys of all rows, as :attr:`Score.key`."""
        return {_key(row) for row in self.rows()}

    def append(self, score: Score) -> None:
        """Adds a row, or replaces the row of the same system and seed."""
        new = {name: str(getattr(score, name)) for name in COLUMNS}
        new |= {name: f"{value:.9g}" for name, value in score.metrics.items()}
        rows = [row for row in self.rows() if _key(row) != score.key] + [new]
        columns = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
        with atomic_write(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)


_LATER = ("sampler", "method")
"""The columns that files of earlier versions do not have."""
_REMEDY = "correct it, or delete the file and run lightning test again"
_LARGEST = 1e100
"""The bound of metrics, since the sum of much larger numbers would not be finite."""


def _is_valid(name: str, value: str) -> bool:
    """Returns whether a value is valid in a column: a whole number, a scale of at least 0, a finite number, or text."""
    match name:
        case "model":
            return bool(value)
        case "weighting" | "guidance" | "sampler" | "method":
            return True
        case "round" | "num_steps" | "nfe" | "seed" | "num_clips":
            return re.fullmatch(r"\d{1,18}", value, flags=re.ASCII) is not None
        case "guidance_scale":
            return bool(value) and finite(value) is not None and float(value) >= 0
        case _:  # a metric, whose cell is empty for systems without it
            return not value or finite(value) is not None


def finite(text: str) -> float | None:
    """Returns the number in a cell, or ``None`` if the text is not a number of magnitude below 1e100."""
    try:
        number = math.nan if "_" in text else float(text)  # Python reads 1_0 as 10
    except ValueError:
        return None
    return number if abs(number) < _LARGEST else None


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the half width of its 95 % interval (Student's t); the half width of one value is NaN.

    With five distances the interval covers 91 to 92 % if some clips are much louder than others
    (``experiments/coverage``).

    Args:
        values: the values, at least one.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)


def crossed_interval(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Returns the mean and the half width of its 95 % interval, if each of T trainings is sampled with S common seeds.

    With y[t, s] = mu + a[t] + b[s] + e[t, s], the mean squares MA of trainings, MB of sampling seeds and ME of the rest
    estimate the variance of the mean by (MA + MB - ME) / (T S). Each has few degrees of freedom, and is therefore
    multiplied by a squared quantile q of Student's t: the squared half width is
    (q_A MA + q_B MB - min(q_A, q_B) ME) / (T S), or that of MA alone or MB alone if one of them is larger. The interval
    covers 95 % if one source of variance dominates, and up to 99.6 % if several are alike (``experiments/coverage``).
    Degrees of freedom by Satterthwaite's formula would give narrower intervals, which cover 90 % at T = 2 and S = 5.

    Args:
        values: T rows of S numbers. With one row, or one number in each row, the result is that of :func:`interval`:
            over sampling seeds for one training, or over trainings for one sampling seed.
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
