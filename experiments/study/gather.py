"""What runs say about themselves, in one file each: scores of all seeds, errors at all rates."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.study.run import Run

ERROR = "val/trajectory_error"


def errors_at_round_ends(folder: Path) -> dict[int, float]:
    """Trajectory error on validation clips at the end of each round, by steps of its student."""
    found = {}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row.get(ERROR):
                found[int(float(row["val/num_steps"]))] = float(row[ERROR])
    return found


def badness(errors: Mapping[int, float], num_rounds: int) -> float:
    """Geometric mean of the errors; infinite where a round is missing or ended in no number."""
    is_whole = len(errors) == num_rounds and all(map(math.isfinite, errors.values()))
    return math.exp(math.fsum(map(math.log, errors.values())) / num_rounds) if is_whole else math.inf


def write_scores(runs: Iterable[Run], root: Path, out: Path) -> None:
    """The rows of each run's ``scores.csv``, those of undistilled models once, since runs share them."""
    rows: list[dict[str, str]] = []
    for i, run in enumerate(runs):
        with (run.folder(root) / "scores.csv").open(newline="") as file:
            whose = {"setting": run.setting, "training_seed": str(run.seed)}
            rows += [whose | row for row in csv.DictReader(file) if i == 0 or row["weighting"]]
    _write(rows, out)


def write_rates(runs: Iterable[Run], root: Path, out: Path) -> None:
    """What the learning rates were chosen by."""
    rows = []
    for run in runs:
        errors = errors_at_round_ends(run.folder(root))
        steps = {f"trajectory_error_{steps}_steps": f"{error:.6g}" for steps, error in errors.items()}
        rows.append({"setting": run.setting, "geometric_mean": f"{badness(errors, run.num_rounds):.6g}"} | steps)
    _write(rows, out)


def _write(rows: list[dict[str, str]], out: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
