"""Paired differences between systems over clips, as a run's ``differences.csv`` has them from ``lightning test``."""

from __future__ import annotations

from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.lists import read_csv
from bsa_lightning.evaluation.scores import finite
from bsa_lightning.reporting.metric_titles import title_of
from bsa_lightning.reporting.samples import friendly

BEST = "★"
"""The mark of a student's best rival."""
HEADER = ["System", "Less", "Metric", "Difference", "95 % interval", "Clips"]
_NUMBERS = ("difference", "low", "high")
_COLUMNS = ("first", "second", "metric", *_NUMBERS, "num_clips")
NOTE = (
    "Differences on the same captions and noise, of one sampling seed; the interval is over clips. "
    "Where it holds 0, these clips do not tell the two apart. It holds the expected difference in 95 % of repetitions "
    "with other clips and the same reference, in more where the two are alike, in less where a few are extreme. "
    f"{BEST} marks a student's best rival: of those that take as many network evaluations or more, the one with the "
    "smallest trajectory error."
)


def read_differences(run: Path) -> list[list[str]]:
    """Returns the rows of ``differences.csv`` as cells under ``HEADER``; empty if the run has no such file.

    Raises:
        UserError: if the file is not one that ``lightning test`` has written.
    """
    path = run / "differences.csv"
    if not path.exists():
        return []
    return [
        _row(row, f"{path} line {line}") for line, row in read_csv(path, _COLUMNS, may_be_empty=True, must_end=True)
    ]


def _row(row: dict[str, str], where: str) -> list[str]:
    for name in _NUMBERS:
        if finite(row[name]) is None:
            raise UserError(f"{where} has {row[name]!r} as its {name}; delete the file and run lightning test again")
    difference, low, high = (f"{float(row[name]):+.3g}" for name in _NUMBERS)
    metric = title_of(row["metric"])
    second = friendly(row["second"]) + (f" {BEST}" if row.get("best_rival") == "yes" else "")
    return [friendly(row["first"]), second, metric, difference, f"{low} to {high}", row["num_clips"]]
