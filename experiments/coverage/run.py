"""Do the intervals that are printed cover 95 %? Run as ``make coverage``; tables go to ``results`` beside this.

Words after the module (``python -m experiments.coverage.run crossed``) run those parts alone.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import torch

from experiments.coverage.clips import Made, Paired
from experiments.coverage.limit import LIMITS, Limit
from experiments.coverage.seeds import PARTS, Crossed, Scores, sizes_of

RESULTS = Path(__file__).parent / "results"
ALL = ("fd", "kad", "kl", "is", "clap", "error")

Case = Crossed | Scores | Paired | Limit


def of_kinds(num_clips: int, num_rows: int, num_features: int) -> list[Made]:
    """Two systems that are alike, two apart, and two apart with some clips much louder than the others."""
    size = (num_clips, num_rows, num_features)
    return [Made(*size), Made(*size, apart=True), Made(*size, apart=True, skew=0.5)]


CASES: dict[str, list[Case]] = {
    "crossed": [Crossed(*size, parts) for parts in PARTS for size in sizes_of(parts)],
    "students": [Scores(Made(48, 2, 128, skew=skew), ("fd", "kad", "error")) for skew in (0.0, 0.5)],
    "paired": [
        *(Paired(made, ALL) for num_clips in (48, 20) for made in of_kinds(num_clips, 2, 128)),
        *(Paired(made, ("kl", "is", "clap", "error"), repeats=100) for made in of_kinds(886, 1, 8)[:2]),
        *(Paired(made, ("fd", "kad"), repeats=100) for made in of_kinds(110, 1, 256)),
    ],
    "limit": list(LIMITS),
}
"""By the name of the part, which is that of its table."""


def rows_of(case: Case) -> tuple[list[dict[str, str]], float]:
    """What a case gives, and the seconds of processor time that it took."""
    torch.set_num_threads(1)
    start = time.process_time()
    found = [case.row()] if isinstance(case, Limit) else [coverage.row() for coverage in case.run()]
    return found, time.process_time() - start


def main(parts: Sequence[str]) -> None:
    """Simulates, prints, and keeps the tables."""
    start, spent = time.monotonic(), 0.0
    with get_context("spawn").Pool(2) as pool:
        for part in parts:
            rows = []
            for found, seconds in pool.imap(rows_of, CASES[part]):
                rows += found
                spent += seconds
                for row in found:
                    print(*(f"{value:10}" for value in row.values()), flush=True)
                write(RESULTS / f"{part}.csv", rows)
    print(f"{(time.monotonic() - start) / 60:.1f} minutes, {spent / 60:.1f} of processor time on two cores")


def write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Writes a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
