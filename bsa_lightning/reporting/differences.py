"""Paired differences between systems, as ``lightning test`` left them in a run's ``differences.csv``."""

from __future__ import annotations

import csv
from pathlib import Path

from bsa_lightning.reporting.samples import friendly
from bsa_lightning.reporting.table import TITLES

HEADER = ["System", "Less", "Metric", "Difference", "95 % interval", "Clips"]


NOTE = (
    "Differences on the same captions and noise, of one sampling seed; the interval is over clips. "
    "Where it holds 0, these clips do not tell the two apart."
)


def read_differences(run: Path) -> list[list[str]]:
    """Rows as text, under ``HEADER``; none where the run compared no pair."""
    path = run / "differences.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [_row(row) for row in csv.DictReader(file)]


def _row(row: dict[str, str]) -> list[str]:
    difference, low, high = (f"{float(row[name]):+.3g}" for name in ("difference", "low", "high"))
    metric = TITLES.get(row["metric"], row["metric"])
    return [friendly(row["first"]), friendly(row["second"]), metric, difference, f"{low} to {high}", row["num_clips"]]
