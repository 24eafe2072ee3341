"""Tables of raw scores that are kept here, made anew.

Run as ``python -m experiments.study.rebuild SCORES OUT [METRIC...]``: ``SCORES`` is a ``scores.csv`` of
``results/``, which holds the repeats of all runs of a part of the study; ``OUT`` gets the report of run folders that
hold nothing but those. Metrics that today's evaluator would measure otherwise are left out by naming the others.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import yaml

from bsa_lightning.evaluation.scores import COLUMNS, KEY
from bsa_lightning.reporting.report import report


def rebuild(scores: Path, root: Path, metrics: tuple[str, ...]) -> list[Path]:
    """A folder ``root/setting/seed`` for each run, with its scores and the undistilled models', and a seed.

    Args:
        scores: as ``make study`` gathers them; undistilled models stand in the first run alone.
        root: for the folders.
        metrics: the columns that are kept; none keeps all.
    """
    with scores.open(newline="") as file:
        rows = list(csv.DictReader(file))
    undistilled = [row for row in rows if not row["weighting"]]
    shared = list({tuple(row[name] for name in KEY if name in row): row for row in undistilled}.values())
    columns = [name for name in rows[0] if name in COLUMNS or not metrics or name in metrics]
    columns = [name for name in columns if name not in ("setting", "training_seed")]
    folders = []
    for setting, seed in dict.fromkeys((row["setting"], row["training_seed"]) for row in rows):
        own = [row for row in rows if (row["setting"], row["training_seed"]) == (setting, seed) and row["weighting"]]
        folder = root / setting / seed
        folder.mkdir(parents=True)
        with (folder / "scores.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows([*shared, *own])
        config = {"seed_everything": int(seed), "model": {"setting": setting}, "data": {}, "trainer": {}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        folders.append(folder)
    return folders


def main(scores: str, out: str, *metrics: str) -> None:
    """Writes the report to ``out``."""
    with tempfile.TemporaryDirectory() as root:
        report(rebuild(Path(scores), Path(root), metrics), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
