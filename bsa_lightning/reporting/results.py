"""What a report reads of run folders: the scores, gathered by system over repeats of sampling and of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.evaluation.scores import COLUMNS, TRAJECTORY_ERROR, ScoreFile, crossed_interval
from bsa_lightning.evaluation.system_name import DDIM_NAME, SystemName
from bsa_lightning.reporting.repeats import Training, label, read_training, readable

REFERENCE = "reference"
SECONDS = "seconds_per_clip"
_ALIKE = ("clips", "evaluator", "embeddings", "readings")
"""What score cards must agree in."""
_SYSTEM = ("model", "weighting", "num_steps", "guidance", "guidance_scale", "nfe", "num_clips", "sampler")
"""The columns that tell one system from another."""


@dataclass(frozen=True)
class Result:
    """One system over its repeats: for each metric the mean and the half width of the 95 % interval.

    The interval is over training and sampling seeds together where the system was trained several times, else over
    sampling seeds alone.
    """

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
    training_seeds: tuple[int, ...] = ()
    """Of runs that are alike but for their seed; none where there is one run."""
    values: dict[str, dict[tuple[int, int], float]] = field(default_factory=dict)
    """By metric, each repeat's number by (training seed, sampling seed)."""
    sampler: str = DDIM_NAME

    @property
    def system(self) -> SystemName:
        """What the system is called in the run's folders."""
        return SystemName.of(vars(self))


@dataclass
class _Group:
    """A system's rows, of one run or of several that repeat one another."""

    training: Training
    runs: list[tuple[Path, int, list[dict[str, str]]]]
    """Folder, training seed, rows."""


def _names(groups: Sequence[_Group]) -> list[str]:
    """How groups are told apart: by their runs' names, or where those are alike by the folders that hold them."""
    names = [label([run for run, _, _ in group.runs]) for group in groups]
    return [
        name if names.count(name) == 1 else readable(str(group.runs[0][0]))
        for name, group in zip(names, groups, strict=True)
    ]


def read_results(runs: Sequence[Path]) -> list[Result]:
    """All systems of all runs: the teacher first, then each weighting, many steps before few.

    Raises:
        UserError: if a folder has no scores, or its runs were scored on different clips.
    """
    _refuse_other_cards(runs)
    gathered: dict[tuple[str, ...], list[_Group]] = {}
    for run in runs:
        training = read_training(run)
        for key, rows in _by_system(_read_rows(run)).items():
            _place(gathered.setdefault(key, []), run, training, rows)
    lines = {key: _line(groups[0].runs[0][2][0]) for key, groups in gathered.items()}
    guidances = {line: {other for title, other in lines.values() if title == line} for line, _ in lines.values()}
    ambiguous = {lines[key] for key, groups in gathered.items() if len(groups) > 1}
    results = [
        _result(group, guidance=len(guidances[lines[key][0]]) > 1, run=name if lines[key] in ambiguous else "")
        for key, groups in gathered.items()
        for name, group in zip(_names(groups), groups, strict=True)
    ]
    if all(result.model == REFERENCE for result in results):
        raise UserError(f"{runs[0]} holds no scores of any system yet; score the run with lightning test")
    counts = {result.num_clips for result in results if result.model != REFERENCE}
    if len(counts) > 1:
        raise UserError(f"these runs were scored on {sorted(counts)} clips, which cannot be compared; score them alike")
    return sorted(results, key=lambda r: (r.model == REFERENCE, r.model != "teacher", r.name, -r.num_steps))


def _refuse_other_cards(runs: Sequence[Path]) -> None:
    """Refuses runs whose scores were measured otherwise, or against other clips, than the first one's."""
    cards = [(run, read_json(path)) for run in runs if (path := Path(run) / "scores.json").is_file()]
    for run, card in cards[1:]:
        first, ours = cards[0]
        if other := [name for name in _ALIKE if _differ(card.get(name), ours.get(name))]:
            raise UserError(
                f"{run} was scored with another {' and '.join(other)} than {first}, so that they cannot be compared;"
                " delete its scores.csv and run lightning test again"
            )


def _differ(one: object, other: object) -> bool:
    """Whether two entries of score cards contradict one another; one that is not there does not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return any(one[name] != other[name] for name in one.keys() & other.keys())
    return one is not None and other is not None and one != other


def metrics_of(results: Sequence[Result]) -> list[str]:
    """The metrics that any system has: the trajectory error leads, the others are in the order of ``scores.csv``."""
    found = dict.fromkeys(name for result in results for name in result.metrics)
    return sorted(found, key=lambda name: name != TRAJECTORY_ERROR)


def _place(known: list[_Group], run: Path, training: Training, rows: list[dict[str, str]]) -> None:
    """Puts a run's rows of one system to those of others that repeat it, or beside them."""
    is_student = bool(rows[0]["weighting"])
    for group in known:
        for i, (folder, seed, others) in enumerate(group.runs):
            if _agree(rows, others) and not (is_student and seed != training.seed):
                seeds = {row["seed"] for row in others}  # the teacher of several runs is one teacher
                group.runs[i] = (folder, seed, [*others, *(row for row in rows if row["seed"] not in seeds)])
                return
        trained = {seed for _, seed, _ in group.runs}
        if is_student and group.training.setting == training.setting and training.seed not in trained:
            group.runs.append((run, training.seed, rows))
            return
    known.append(_Group(training, [(run, training.seed, rows)]))


def _by_system(rows: Sequence[dict[str, str]]) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """The repeats of each system, by the columns of ``_SYSTEM``."""
    systems: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        systems.setdefault(tuple(row[name] for name in _SYSTEM), []).append(row)
    return systems


def _agree(rows: Sequence[dict[str, str]], others: Sequence[dict[str, str]]) -> bool:
    """Whether there are repeats that both have, and those got the same numbers, however long they took."""
    theirs = {row["seed"]: _untimed(row) for row in others}
    both = [row for row in rows if row["seed"] in theirs]
    return bool(both) and all(_untimed(row) == theirs[row["seed"]] for row in both)


def _untimed(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name != SECONDS}


def _line(row: Mapping[str, Any]) -> tuple[str, str]:
    """What the step counts of one line share: its title, and its guidance for where titles are alike."""
    guidance = f"{row['guidance']} g={float(row['guidance_scale']):g}" if row["guidance"] else ""
    return SystemName.of(row).title, guidance


def _result(group: _Group, *, guidance: bool, run: str) -> Result:
    _, _, rows = group.runs[0]
    first = rows[0]
    title, how = _line(first)
    names = [name for name in first if name not in COLUMNS or name == SECONDS]
    values = {
        name: {
            (seed, int(row["seed"])): float(row[name]) for _, seed, rows in group.runs for row in rows if row.get(name)
        }
        for name in names
    }
    means = {name: _interval(numbers) for name, numbers in values.items() if numbers}
    seconds = means.pop(SECONDS, None)
    seeds = tuple(sorted(seed for _, seed, _ in group.runs))
    return Result(
        model=first["model"],
        weighting=first["weighting"],
        num_steps=int(first["num_steps"]),
        guidance=first["guidance"],
        guidance_scale=float(first["guidance_scale"]),
        nfe=int(first["nfe"]),
        num_clips=int(first["num_clips"]),
        seeds=tuple(sorted(set.intersection(*({int(row["seed"]) for row in rows} for _, _, rows in group.runs)))),
        metrics=means,
        seconds=seconds,
        name=", ".join(part for part in (title, how if guidance else "", run) if part),
        training_seeds=seeds if len(seeds) > 1 else (),
        values={name: values[name] for name in means},
        sampler=first["sampler"],
    )


def crossed(values: Mapping[tuple[int, int], float]) -> list[list[float]]:
    """Numbers by (training seed, sampling seed) as a matrix: of the sampling seeds that all training seeds have."""
    sampled: dict[int, set[int]] = {}
    for training, sampling in values:
        sampled.setdefault(training, set()).add(sampling)
    common = sorted(set.intersection(*sampled.values())) if sampled else []
    return [[values[training, sampling] for sampling in common] for training in sorted(sampled)]


def _interval(values: Mapping[tuple[int, int], float]) -> tuple[float, float]:
    """Mean and half width; where no sampling seed is common to all, the mean of all numbers, and no half width."""
    rows = crossed(values)
    return crossed_interval(rows) if rows[0] else (math.fsum(values.values()) / len(values), math.nan)


def _read_rows(run: Path) -> list[dict[str, str]]:
    if not Path(run).is_dir():
        how = "is no folder" if Path(run).exists() else "does not exist"
        raise UserError(f"{run} {how}; name a run folder, such as runs/demo")
    if not (rows := ScoreFile(Path(run) / "scores.csv").rows()):
        raise UserError(f"{run} holds no scores.csv; score the run with lightning test first")
    return rows
