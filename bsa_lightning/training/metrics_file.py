"""The logger of ``metrics.csv``, to which a later ``test`` or a resumed ``fit`` appends; Lightning's deletes it."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write
from bsa_lightning.common.lists import read_csv


class MetricsFile(Logger):
    """Appends a row to ``<run>/metrics.csv`` for each call, so that nothing is lost when the run is killed.

    Args:
        run: the folder of the run.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self._path = run / "metrics.csv"
        self._columns: list[str] | None = None
        self._num_rows = 0

    @property
    def name(self) -> str:
        """The empty text, so that Lightning's ``ModelCheckpoint`` writes to ``<run>/checkpoints``."""
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object) -> None:
        """Does nothing, since the whole configuration is in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row: dict[str, Any] = {"step": step, **metrics}
        if self._columns is None:
            self.rewind(self.position())
        assert self._columns is not None
        if new := [name for name in row if name not in self._columns]:
            rows = self._rows()
            self._columns += sorted(new)
            self._write(rows)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)
        self._num_rows += 1

    def position(self) -> dict[str, Any]:
        """Returns the number of rows and the columns of the file, to be passed to :meth:`rewind` later."""
        if self._columns is not None:
            return {"rows": self._num_rows, "columns": list(self._columns)}
        rows = self._rows()
        return {"rows": len(rows), "columns": list(rows[0]) if rows else ["step"]}

    def rewind(self, position: Mapping[str, Any]) -> int:
        """Cuts the file back to an earlier position.

        Args:
            position: the position, as :meth:`position` returned it.

        Returns:
            The number of rows that were removed, which a run that is resumed from there will log again.

        Raises:
            UserError: if the file has fewer rows than it had then.
        """
        rows = self._rows()
        if len(rows) < position["rows"]:
            raise UserError(
                f"{self._path} has {len(rows)} rows, but had {position['rows']} at the checkpoint; bring the whole file"
                " back, or replace the run (--overwrite true, without --ckpt_path)"
            )
        kept = rows[: position["rows"]]
        self._columns, self._num_rows = list(position["columns"]), len(kept)
        if rows:
            self._write([{name: row.get(name, "") for name in self._columns} for row in kept])
        return len(rows) - len(kept)

    def _rows(self) -> list[dict[str, str]]:
        """Returns the rows; an incomplete last line, of a process that was killed while writing, is left out."""
        if not self._path.is_file() or not self._path.stat().st_size:
            return []
        return [row for _, row in read_csv(self._path, ("step",), may_be_empty=True, may_be_cut=True)]

    def _write(self, rows: list[dict[str, str]]) -> None:
        assert self._columns is not None
        with atomic_write(self._path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
