"""Checks of a YAML configuration before it is loaded: refuses what would hang, exhaust memory or lose a setting."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsa_lightning.common.errors import UserError

_MOST_BYTES = 4 << 20
_MOST_NODES = 100_000
"""The most nodes of a configuration with its aliases expanded; the largest recipe here has some hundreds."""
_DEEPEST = 100


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, empty if the file is blank.

    Raises:
        UserError: if it is not a regular file, is too large, is not UTF-8 text, YAML or a mapping, or is refused by
            :func:`check_yaml`.
    """
    import yaml

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is not a file; name a YAML file")
        if status.st_size > _MOST_BYTES:
            raise UserError(f"{path} has {status.st_size} bytes, too many for a configuration; name a YAML file")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read (it is not text in UTF-8); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a YAML file") from error
    try:
        check_yaml(text, where=str(path))
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML ({_reason(error)}); correct it") from error
    if not isinstance(content, dict | None):
        raise UserError(f"{path} holds no settings; it must have lines such as `seed_everything: 0`")
    return content or {}


def check_yaml(text: str, *, where: str) -> None:
    """Checks that YAML can be loaded safely and that no part of it would be lost.

    Args:
        text: the YAML.
        where: the name of the file, for the message.

    Raises:
        UserError: if an alias refers to a node that contains it, there are more than 100,000 nodes with aliases
            expanded or more than 100 levels of nesting, a mapping has a key twice, or there are several documents.
        yaml.YAMLError: if the text is not YAML.
    """
    import yaml

    walk = _Walk(where)
    for event in yaml.parse(text, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):
        walk.line = event.start_mark.line + 1 if event.start_mark else 0
        match event:
            case yaml.DocumentStartEvent():
                walk.begin_document()
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                walk.enter(event.anchor, is_mapping=isinstance(event, yaml.MappingStartEvent))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                walk.leave()
            case yaml.AliasEvent():
                walk.alias(event.anchor or "")
            case yaml.ScalarEvent():
                walk.scalar(event.value)


@dataclass
class _Open:
    """A mapping or list whose end has not been read yet."""

    anchor: str | None
    keys: set[str] | None
    """The keys so far of a mapping; ``None`` for a list."""
    size: int = 1
    at_key: bool = True


class _Walk:
    """Counts the nodes that a text would load to, without loading it."""

    def __init__(self, where: str) -> None:
        self.where, self.line = where, 0
        self._documents = 0
        self._open: list[_Open] = []
        self._sizes: dict[str, int] = {}

    def begin_document(self) -> None:
        self._documents += 1
        if self._documents > 1:
            raise UserError(f"{self.where} holds several documents (line {self.line}: ---); write one")

    def enter(self, anchor: str | None, *, is_mapping: bool) -> None:
        self._open.append(_Open(anchor, set() if is_mapping else None))
        if len(self._open) > _DEEPEST:
            raise UserError(f"{self.where} is nested more than {_DEEPEST} deep in line {self.line}; write it flatter")

    def leave(self) -> None:
        done = self._open.pop()
        if done.anchor is not None:
            self._sizes[done.anchor] = done.size
        self._add(done.size)

    def alias(self, anchor: str) -> None:
        if any(part.anchor == anchor for part in self._open):
            raise UserError(
                f"{self.where} has the alias *{anchor} inside of &{anchor} in line {self.line}; take it out"
            )
        self._add(self._sizes.get(anchor, 1))

    def scalar(self, text: str) -> None:
        if self._open and (keys := self._open[-1].keys) is not None and self._open[-1].at_key:
            if text in keys:
                raise UserError(
                    f"{self.where} has the key {text} twice in one place, again in line {self.line}; keep one"
                )
            keys.add(text)
        self._add(1)

    def _add(self, size: int) -> None:
        """Adds a node of ``size`` nodes to the mapping or list that contains it."""
        if self._open:
            self._open[-1].size += size
            self._open[-1].at_key = not self._open[-1].at_key
        if sum(part.size for part in self._open) > _MOST_NODES:
            raise UserError(
                f"{self.where} has aliases that grow to more than {_MOST_NODES} settings in line {self.line}; use fewer"
            )


def _reason(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}: {problem}"
