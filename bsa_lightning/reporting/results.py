"""The results of a report: the scores of run folders, grouped by system over sampling seeds and training seeds."""

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
"""The entries in which the score cards of all runs must agree."""
_SYSTEM = ("model", "weighting", "num_steps", "guidance", "guidance_scale", "nfe", "num_clips", "sampler", "method")
"""The columns that tell one system from another."""


@dataclass(frozen=True)
class Result:
    """The scores of one system over its repeats.

    Args:
        model: "teacher", "student", "reference", or "baseline-" and a name.
        weighting: the name of a student's weighting; empty for other systems.
        num_steps: the number of steps of the sampler; 0 for the reference.
        guidance: the name of the mode of guidance, which is "outside" for undistilled models, empty for the reference.
        guidance_scale: the guidance scale that the system stands for.
        nfe: the number of network evaluations of a clip.
        num_clips: the number of clips that were scored.
        seeds: the sampling seeds that all repeats have.
        metrics: the mean of each metric, and the half width of its 95 % interval: over training and sampling seeds
            together if the system was trained several times, else over sampling seeds alone.
        seconds: the mean time to generate a clip, in seconds, with its half width; ``None`` if it was not measured.
        name: the name in tables and legends, which is as short as distinguishes it from the other systems.
        training_seeds: the training seeds of repeated runs; empty if there is one run.
        values: the value of each metric by (training seed, sampling seed).
        sampler: the name of the sampler.
        method: the name of a student's method of distillation; empty for other systems.
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
    name: str
    training_seeds: tuple[int, ...] = ()
    values: dict[str, dict[tuple[int, int], float]] = field(default_factory=dict)
    sampler: str = DDIM_NAME
    method: str = ""

    @property
    def system(self) -> SystemName:
        """The name of the system in the run's folders."""
        return SystemName.of(vars(self))


@dataclass
class _Group:
    """The rows of a system, from one run or from repeats."""

    training: Training
    runs: list[tuple[Path, int, list[dict[str, str]]]]
    """The folder, the training seed and the rows of each run."""


def _names(groups: Sequence[_Group]) -> list[str]:
    """Returns names that distinguish groups: those of their runs, or the whole paths if those are equal."""
    names = [label([run for run, _, _ in group.runs]) for group in groups]
    return [
        name if names.count(name) == 1 else readable(str(group.runs[0][0]))
        for name, group in zip(names, groups, strict=True)
    ]


def read_results(runs: Sequence[Path]) -> list[Result]:
    """Returns all systems of all runs: the teacher first, then each weighting, many steps before few.

    Raises:
        UserError: if a folder has no scores, or the runs were scored on different clips.
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
        raise UserError(
            f"the scores are of {' and of '.join(map(str, sorted(counts)))} clips, which cannot be compared; delete the"
            " scores.csv of a run that has others, and run lightning test again"
        )
    return sorted(results, key=lambda r: (r.model == REFERENCE, r.model != "teacher", r.name, -r.num_steps))


def _refuse_other_cards(runs: Sequence[Path]) -> None:
    """Refuses runs that were scored in another way, or on other clips, than the first run."""
    cards = [(run, read_json(path)) for run in runs if (path := Path(run) / "scores.json").is_file()]
    for run, card in cards[1:]:
        first, ours = cards[0]
        if other := [name for name in _ALIKE if _differ(card.get(name), ours.get(name))]:
            raise UserError(
                f"{run} was scored with another {' and '.join(other)} than {first}, so that they cannot be compared;"
                " delete its scores.csv and run lightning test again"
            )


def _differ(one: object, other: object) -> bool:
    """Returns whether two entries of score cards differ; missing entries differ from nothing."""
    if isinstance(one, dict) and isinstance(other, dict):
        return any(one[name] != other[name] for name in one.keys() & other.keys())
    return one is not None and other is not None and one != other


def metrics_of(results: Sequence[Result]) -> list[str]:
    """Returns the metrics of all systems: the trajectory error first, the others in the order of ``scores.csv``."""
    found = dict.fromkeys(name for result in results for name in result.metrics)
    return sorted(found, key=lambda name: name != TRAJECTORY_ERROR)


def _place(known: list[_Group], run: Path, training: Training, rows: list[dict[str, str]]) -> None:
    """Adds a run's rows of one system to a group of which they are repeats, or to a new group."""
    is_student = bool(rows[0]["weighting"])
    for group in known:
        for i, (folder, seed, others) in enumerate(group.runs):
            if _agree(rows, others) and not (is_student and seed != training.seed):
                seeds = {row["seed"] for row in others}  # several runs have scored the same teacher
                group.runs[i] = (folder, seed, [*others, *(row for row in rows if row["seed"] not in seeds)])
                return
        trained = {seed for _, seed, _ in group.runs}
        if is_student and group.training.setting == training.setting and training.seed not in trained:
            group.runs.append((run, training.seed, rows))
            return
    known.append(_Group(training, [(run, training.seed, rows)]))


def _by_system(rows: Sequence[dict[str, str]]) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """Returns the rows of each system, by the columns of ``_SYSTEM``."""
    systems: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        systems.setdefault(tuple(row[name] for name in _SYSTEM), []).append(row)
    return systems


def _agree(rows: Sequence[dict[str, str]], others: Sequence[dict[str, str]]) -> bool:
    """Returns whether both have rows of common seeds, and these are equal except for the time that was measured."""
    theirs = {row["seed"]: _untimed(row) for row in others}
    both = [row for row in rows if row["seed"] in theirs]
    return bool(both) and all(_untimed(row) == theirs[row["seed"]] for row in both)


def _untimed(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name != SECONDS}


def _line(row: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the title of a row's system, and its guidance, by which systems of equal titles are distinguished."""
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
        method=first["method"],
    )


def crossed(values: Mapping[tuple[int, int], float]) -> list[list[float]]:
    """Returns values by (training seed, sampling seed) as rows, of the sampling seeds that all training seeds have."""
    sampled: dict[int, set[int]] = {}
    for training, sampling in values:
        sampled.setdefault(training, set()).add(sampling)
    common = sorted(set.intersection(*sampled.values())) if sampled else []
    return [[values[training, sampling] for sampling in common] for training in sorted(sampled)]


def _interval(values: Mapping[tuple[int, int], float]) -> tuple[float, float]:
    """Returns mean and half width; without a common sampling seed the mean of all values, and NaN."""
    rows = crossed(values)
    return crossed_interval(rows) if rows[0] else (math.fsum(values.values()) / len(values), math.nan)


def _read_rows(run: Path) -> list[dict[str, str]]:
    if not Path(run).is_dir():
        how = "is no folder" if Path(run).exists() else "does not exist"
        raise UserError(f"{run} {how}; name a run folder, such as runs/demo")
    if not (rows := ScoreFile(Path(run) / "scores.csv").rows()):
        if (Path(run) / "model").is_dir() and not (Path(run) / "rounds").is_dir():
            raise UserError(
                f"{run} is the run of a teacher, which has no students to report on; score it by itself with lightning"
                f" score --model {run}"
            )
        raise UserError(f"{run} holds no scores.csv; score the run with lightning test first")
    return rows
