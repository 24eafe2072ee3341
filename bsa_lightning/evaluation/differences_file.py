"""``differences.csv`` of a run: each student against each of its rivals, with intervals over clips."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bsa_lightning.common.files import atomic_write
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.paired_differences import ClipDifference, compare, resample_all
from bsa_lightning.evaluation.rivals import best_of
from bsa_lightning.evaluation.row_store import load_rows, mean
from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR
from bsa_lightning.evaluation.systems import System


class DifferenceRow(NamedTuple):
    """A row of ``differences.csv``: ``first`` less ``second`` in one metric, for one sampling seed."""

    first: str
    """The name of a system, as folders have it."""
    second: str
    seed: int
    metric: str
    found: ClipDifference
    best_rival: bool
    """Whether ``second`` is the strongest system that ``first`` has to beat."""


def write_student_differences(
    path: Path, systems: Sequence[System], *, measures: Sequence[Measures], rows_of: Callable[[System], Path], seed: int
) -> None:
    """Compares each student with the undistilled teachers of as many steps or network evaluations, and writes the file.

    Systems without rows are passed over. A student's best rival is the one with the smallest trajectory error among
    those that take as many network evaluations or more.

    Args:
        path: the path of the CSV file.
        systems: all systems that were scored.
        measures: the measures to compare, beside the trajectory error.
        rows_of: gives the path of the file of a system's rows.
        seed: the sampling seed of those rows.
    """
    rows = {system: load_rows(rows_of(system)) for system in systems if rows_of(system).is_file()}
    resampled = {system: resample_all(measures, of_system) for system, of_system in rows.items()}
    found: list[DifferenceRow] = []
    for student in (system for system in rows if system.model == "student"):
        rivals = [system for system in rows if system.competes_with(student)]
        measured = [rival for rival in rivals if rival.nfe >= student.nfe and TRAJECTORY_ERROR in rows[rival]]
        best = best_of(measured, lambda rival: mean(rows[rival][TRAJECTORY_ERROR]))
        for rival in rivals:
            differences = compare(resampled[student], resampled[rival])
            found += [
                DifferenceRow(student.name, rival.name, seed, metric, difference, rival == best)
                for metric, difference in differences.items()
            ]
    write_differences(path, found)


def write_differences(path: Path, rows: Iterable[DifferenceRow]) -> None:
    """Writes rows to ``differences.csv``, whose column ``best_rival`` is "yes" or empty."""
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["first", "second", "seed", "metric", *ClipDifference._fields, "best_rival"])
        for *names, found, best_rival in rows:
            numbers = [f"{number:.9g}" for number in found[:3]]
            writer.writerow([*names, *numbers, found.num_clips, "yes" if best_rival else ""])
