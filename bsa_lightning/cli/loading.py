"""What is said on a terminal while a command loads, and what is held back until it has loaded."""

from __future__ import annotations

import importlib.machinery
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

PATIENCE = 1.5
"""Seconds until a line says that PyTorch and Lightning are being loaded."""

_SLOW = ("diffusers", "transformers")
"""Packages whose import takes seconds, so that it is announced at once."""


@contextmanager
def loading(command: str) -> Iterator[None]:
    """Returns a context in which the command is imported; a line on stderr says so if that takes long.

    From then on, a second line announces the first of the packages that networks and text encoders need. Nothing is
    printed where stderr is not a terminal, nor by the processes of other ranks.

    Args:
        command: the name of the command.
    """
    if not sys.stderr.isatty() or os.environ.get("LOCAL_RANK", "0") != "0":
        yield
        return
    sys.meta_path.insert(0, _Announcer(command))
    timer = threading.Timer(PATIENCE, _say, (command, "PyTorch and Lightning"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Announcer:
    """A finder that finds nothing, and says once that a slow package is looked for.

    Args:
        command: the name of the command.
    """

    def __init__(self, command: str) -> None:
        self.command = command

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname in _SLOW:
            sys.meta_path.remove(self)
            _say(self.command, "the networks' packages, diffusers and transformers")
        return None


def _say(command: str, what: str) -> None:
    print(f"lightning {command}: loading {what} ...", file=sys.stderr, flush=True)


@contextmanager
def held_back(logger: logging.Logger) -> Iterator[None]:
    """A context in which a logger keeps its lines, and after which it writes them, unless an exception ends it."""
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        held.append(record)
        return False

    logger.addFilter(hold)
    try:
        yield
    finally:
        logger.removeFilter(hold)
    for record in held:
        logger.handle(record)
