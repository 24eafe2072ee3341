"""Progress on a terminal as a bar, and elsewhere, such as in the log of a job, as a few lines."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

SECONDS = 30.0
"""Seconds until a line says how far it is, where a tenth of the work takes longer."""


class Tenths:
    """Says when a line is due: at each tenth of the work, and after 30 seconds without a line."""

    def __init__(self) -> None:
        self._tenth, self._said_at, self._said = 0, time.monotonic(), 0.0

    def is_due(self, done: float, total: float | None) -> bool:
        """Returns whether a line is due, of which it takes note.

        Args:
            done: how much is done.
            total: how much there is to do; ``None`` if that is not known.
        """
        tenth = int(10 * done / total) if total else 0
        is_late = done != self._said and time.monotonic() - self._said_at >= SECONDS
        if tenth <= self._tenth and not is_late:
            return False
        self._tenth, self._said_at, self._said = max(tenth, self._tenth), time.monotonic(), done
        return True

    def restart(self) -> None:
        """Begins other work."""
        self.__init__()  # type: ignore[misc]


class _Lines(tqdm):  # type: ignore[type-arg]
    """A progress bar that writes lines."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of tqdm
        self._tenths = Tenths()
        super().__init__(*args, **kwargs)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        del msg, pos
        if self._tenths.is_due(self.n, self.total):
            of = f" of {self.total}" if self.total else ""
            elapsed = self.format_dict["elapsed"]
            rate = f", {self.n / elapsed:.3g} {self.unit}s a second" if elapsed > 0 else ""
            self.fp.write(f"{self.desc.removesuffix(': ')}: {self.n}{of} {self.unit}s{rate}\n")
            self.fp.flush()

    def reset(self, total: float | None = None) -> None:
        self._tenths.restart()
        super().reset(total)

    def close(self) -> None:
        if not self.disable:
            self.display()
            self.disable = True
            self._decr_instances(self)  # type: ignore[attr-defined]


def progress(*args: Any, **kwargs: Any) -> tqdm[Any]:  # noqa: ANN401 - those of tqdm
    """Returns tqdm's bar where stderr is a terminal, and one that writes a line at each tenth elsewhere.

    Args:
        *args: the iterable, as tqdm takes it.
        **kwargs: the options of tqdm.
    """
    return tqdm(*args, **kwargs) if sys.stderr.isatty() else _Lines(*args, **kwargs)
