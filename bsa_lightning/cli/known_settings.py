"""The names that a setting or a class may have, for hints at what a misspelt one was meant to be."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import sys
import typing
from collections.abc import Iterable, Iterator
from contextlib import suppress

from bsa_lightning.cli.classes import MODULES

_FOREIGN = ("lightning.pytorch.callbacks", "lightning.pytorch.loggers", "torch.optim")
"""Packages whose classes are known as well, once they are imported."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a hint at the known word that is most similar; empty if no word is similar."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    if not near and len(word) > 3:
        near = [name for name in known if name.startswith(word)][:1]
    return f", did you mean {near[0]}?" if near else ""


def class_names() -> list[str]:
    """Returns the names of the imported classes that a configuration may name: bare ones, then those of packages."""
    ours = [
        attribute
        for module_name, module in list(sys.modules.items())
        if module_name in MODULES
        for attribute, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module_name and not attribute.startswith("_")
        if not inspect.isabstract(value)
    ]
    foreign = [
        name
        for package in _FOREIGN
        if package in sys.modules
        for name, value in vars(sys.modules[package]).items()
        if isinstance(value, type) and not name.startswith("_")
    ]
    return [*ours, *foreign]


def settings_of_class(path: str) -> list[str]:
    """Returns the settings of a class, those of nested dataclasses by their dotted names.

    Args:
        path: the class path; one that cannot be imported has no settings.
    """
    module, _, name = path.rpartition(".")
    with suppress(ImportError, ValueError, AttributeError, TypeError):
        return list(_settings(getattr(importlib.import_module(module), name)))
    return []


def _settings(kind: type) -> Iterator[str]:
    hints: dict[str, object] = {}
    with suppress(NameError, TypeError, KeyError):  # a type that is known to type checkers only
        hints = typing.get_type_hints(vars(kind)["__init__"])
    for name in inspect.signature(kind).parameters:
        yield name
        hint = hints.get(name)
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from (f"{name}.{field.name}" for field in dataclasses.fields(part))
