"""A context in which constructors check their settings and load no network, so that all mistakes are found in a second.

The command line enters it when one mistake is known and the others are looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_unloaded: ContextVar[bool] = ContextVar("unloaded", default=False)


class NotLoadedError(Exception):
    """A network was to be loaded where settings alone are checked."""


@contextmanager
def without_networks() -> Iterator[None]:
    """A context in which a network that is to be loaded ends its module's constructor, with :class:`NotLoadedError`."""
    token = _unloaded.set(True)
    try:
        yield
    finally:
        _unloaded.reset(token)


def refuse_to_load(model: str | Path) -> None:
    """Called before a network is loaded, or anything else that takes long.

    Args:
        model: the folder or name of the model, or what else would take long.

    Raises:
        NotLoadedError: in the context of :func:`without_networks`.
    """
    if _unloaded.get():
        raise NotLoadedError(f"{model} is not loaded where settings alone are checked")
