"""What a report reads of run folders: the scores, gathered by system over repeats."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.scores import COLUMNS, interval

REFERENCE = "reference"
SECONDS = "seconds_per_clip"
_SYSTEM = ("model", "weighting", "num_steps", "guidance", "guidance_scale", "nfe", "num_clips")
"""The columns that tell one system from another."""


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
    seconds: tuple[float, float] | None
    """Seconds to generate one clip, as measured; none where the run did not measure."""
    name: str
    """How a table or legend calls it: of as few words as tell it from the other systems."""


def read_results(runs: Sequence[Path]) -> list[Result]:
    """All systems of all runs: the teacher first, then each weighting, many steps before few.

    Raises:
        UserError: if a folder has no scores, or its runs were scored on different clips.
    """
    gathered: dict[tuple[str, ...], list[tuple[str, list[dict[str, str]]]]] = {}
    for run in runs:
        for key, rows in _by_system(_read_rows(run)).items():
            known = gathered.setdefault(key, [])
            if not any(_agree(rows, other) for _, other in known):  # the teacher of several runs is one teacher
                known.append((run.name, rows))
    guidances = {key[:2]: {other[3:5] for other in gathered if other[:2] == key[:2]} for key in gathered}
    ambiguous = {key[:2] + key[3:5] for key, systems in gathered.items() if len(systems) > 1}
    results = [
        _result(rows, guidance=len(guidances[key[:2]]) > 1, run=name if key[:2] + key[3:5] in ambiguous else "")
        for key, systems in gathered.items()
        for name, rows in systems
    ]
    if all(result.model == REFERENCE for result in results):
        raise UserError(f"{runs[0]} holds no scores of any system yet; score the run with lightning test")
    counts = {result.num_clips for result in results if result.model != REFERENCE}
    if len(counts) > 1:
        raise UserError(f"these runs were scored on {sorted(counts)} clips, which cannot be compared; score them alike")
    return sorted(results, key=lambda r: (r.model == REFERENCE, r.model != "teacher", r.name, -r.num_steps))


def metrics_of(results: Sequence[Result]) -> list[str]:
    """The metrics that any system has, in the order of ``scores.csv``."""
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def _by_system(rows: Sequence[dict[str, str]]) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """The repeats of each system, by the columns of ``_SYSTEM``."""
    systems: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        systems.setdefault(tuple(row[name] for name in _SYSTEM), []).append(row)
    return systems


def _agree(rows: Sequence[dict[str, str]], others: Sequence[dict[str, str]]) -> bool:
    """Whether the repeats that both have got the same numbers, however long they took."""
    theirs = {row["seed"]: _untimed(row) for row in others}
    return all(_untimed(row) == theirs.get(row["seed"], _untimed(row)) for row in rows)


def _untimed(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name != SECONDS}


def _name(row: dict[str, str], *, guidance: bool, run: str) -> str:
    match row:
        case {"model": "teacher"}:
            name = "Teacher (DDIM)"
        case {"weighting": ""}:
            name = row["model"].capitalize()
        case _:
            name = f"Student ({row['weighting']})"
    how = f", {row['guidance']} g={float(row['guidance_scale']):g}" if guidance and row["guidance"] else ""
    return name + how + (f", {run}" if run else "")


def _result(rows: Sequence[dict[str, str]], *, guidance: bool, run: str) -> Result:
    first = rows[0]
    names = [name for name in first if name not in COLUMNS or name == SECONDS]
    values = {name: [float(row[name]) for row in rows if row.get(name)] for name in names}
    means = {name: interval(numbers) for name, numbers in values.items() if numbers}
    seconds = means.pop(SECONDS, None)
    return Result(
        model=first["model"],
        weighting=first["weighting"],
        num_steps=int(first["num_steps"]),
        guidance=first["guidance"],
        guidance_scale=float(first["guidance_scale"]),
        nfe=int(first["nfe"]),
        num_clips=int(first["num_clips"]),
        seeds=tuple(int(row["seed"]) for row in rows),
        metrics=means,
        seconds=seconds,
        name=_name(first, guidance=guidance, run=run),
    )


def _read_rows(run: Path) -> list[dict[str, str]]:
    path = Path(run) / "scores.csv"
    if not Path(run).is_dir():
        raise UserError(f"{run} does not exist; name a run folder, such as runs/demo")
    if not path.is_file():
        raise UserError(f"{run} holds no scores.csv; score the run with lightning test first")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or any(name not in rows[0] for name in (*_SYSTEM, "seed")):
        raise UserError(f"{path} is not a score file of this project; score the run with lightning test")
    return rows
