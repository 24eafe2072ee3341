"""What a report reads of run folders: the scores, gathered by system over repeats."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.scores import COLUMNS, interval

REFERENCE = "reference"


@dataclass(frozen=True)
class Result:
    """One system over its repeats: for each metric the mean and the half width of the 95 % interval."""

    model: str
    weighting: str
    num_steps: int
    guidance: str
    guidance_scale: float
    nfe: int
    num_clips: int
    seeds: tuple[int, ...]
    metrics: dict[str, tuple[float, float]]

    @property
    def name(self) -> str:
        """How a table or legend calls it."""
        if self.model == "teacher":
            return "Teacher (DDIM)"
        return f"Student ({self.weighting})" if self.weighting else self.model.capitalize()


def read_results(runs: Sequence[Path]) -> list[Result]:
    """All systems of all runs: the teacher first, then each weighting, many steps before few.

    Raises:
        UserError: if a folder has no scores, or its runs were scored on different clips.
    """
    gathered: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for run in runs:
        for row in _read_rows(run):
            key = tuple(row[name] for name in COLUMNS if name not in ("seed", "round"))
            same_seed = [other for other in gathered.get(key, []) if other["seed"] == row["seed"]]
            if not same_seed:  # the teacher of several runs is one teacher
                gathered.setdefault(key, []).append(row)
    results = [_result(rows) for rows in gathered.values()]
    counts = {result.num_clips for result in results if result.model != REFERENCE}
    if len(counts) > 1:
        raise UserError(f"these runs were scored on {sorted(counts)} clips, which cannot be compared; score them alike")
    return sorted(results, key=lambda r: (r.model == REFERENCE, r.model != "teacher", r.name, -r.num_steps))


def metrics_of(results: Sequence[Result]) -> list[str]:
    """The metrics that any system has, in the order of ``scores.csv``."""
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def _result(rows: Sequence[dict[str, str]]) -> Result:
    first = rows[0]
    names = [name for name in first if name not in COLUMNS]
    values = {name: [float(row[name]) for row in rows if row.get(name)] for name in names}
    return Result(
        model=first["model"],
        weighting=first["weighting"],
        num_steps=int(first["num_steps"]),
        guidance=first["guidance"],
        guidance_scale=float(first["guidance_scale"]),
        nfe=int(first["nfe"]),
        num_clips=int(first["num_clips"]),
        seeds=tuple(int(row["seed"]) for row in rows),
        metrics={name: interval(numbers) for name, numbers in values.items() if numbers},
    )


def _read_rows(run: Path) -> list[dict[str, str]]:
    path = Path(run) / "scores.csv"
    if not Path(run).is_dir():
        raise UserError(f"{run} does not exist; name a run folder, such as runs/demo")
    if not path.is_file():
        raise UserError(f"{run} holds no scores.csv; score the run with lightning test first")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or any(name not in rows[0] for name in COLUMNS):
        raise UserError(f"{path} is not a score file of this project; score the run with lightning test")
    return rows
