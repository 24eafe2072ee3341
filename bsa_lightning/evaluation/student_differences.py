"""``differences.csv`` of a run: each student against each of its rivals, clip by clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.paired import PairedRow, compare, resample_all, write_differences
from bsa_lightning.evaluation.row_store import load_rows, mean
from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR, three_digits
from bsa_lightning.evaluation.systems import System


def write_student_differences(
    path: Path, systems: Sequence[System], *, measures: Sequence[Measures], rows_of: Callable[[System], Path], seed: int
) -> None:
    """Compares every student with the undistilled teachers at its steps or its evaluations, where both have rows.

    The best rival is the one with the smallest trajectory error among those of as many evaluations or more.

    Args:
        path: of the CSV file.
        systems: all that were scored.
        measures: what is compared, beside the trajectory error.
        rows_of: gives the file of a system's rows.
        seed: the sampling seed of those rows.
    """
    rows = {system: load_rows(rows_of(system)) for system in systems if rows_of(system).is_file()}
    resampled = {system: resample_all(measures, of_system) for system, of_system in rows.items()}
    found: list[PairedRow] = []
    for student in (system for system in rows if system.model == "student"):
        rivals = [system for system in rows if system.competes_with(student)]
        errors = {
            rival: three_digits(mean(rows[rival][TRAJECTORY_ERROR]))
            for rival in rivals
            if rival.nfe >= student.nfe and TRAJECTORY_ERROR in rows[rival]
        }
        best = min(errors, key=lambda rival: errors[rival], default=None)
        for rival in rivals:
            differences = compare(resampled[student], resampled[rival])
            found += [PairedRow(student.name, rival.name, seed, *item, rival == best) for item in differences.items()]
    write_differences(path, found)
