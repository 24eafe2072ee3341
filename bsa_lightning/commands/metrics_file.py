"""``metrics.csv`` of a run, which a later ``test`` or a resumed ``fit`` carries on (Lightning's logger deletes it)."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from bsa_lightning.files import whole


class MetricsFile(Logger):
    """Appends one row a call to ``<run>/metrics.csv``, so that a killed run loses none.

    Args:
        run: the run's folder.
        resumed: the first row replaces what an earlier process logged from its step on.
    """

    def __init__(self, run: Path, *, resumed: bool) -> None:
        super().__init__()
        self._path = run / "metrics.csv"
        self._columns: list[str] | None = None
        self._resumed = resumed

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object) -> None:
        """Nothing: the whole configuration is in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row: dict[str, Any] = {"step": step, **metrics}
        if self._columns is None:
            self._take_over(step)
        assert self._columns is not None
        if new := [name for name in row if name not in self._columns]:
            rows = self._rows()
            self._columns += sorted(new)
            self._write(rows)
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _take_over(self, step: int | None) -> None:
        rows = self._rows()
        self._columns = list(rows[0]) if rows else ["step"]
        if self._resumed and step is not None:
            rows = [row for row in rows if int(row["step"]) < step]
        self._write(rows)

    def _rows(self) -> list[dict[str, str]]:
        if not self._path.is_file():
            return []
        with self._path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _write(self, rows: list[dict[str, str]]) -> None:
        assert self._columns is not None
        with whole(self._path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
