"""Where a setting was written: which word of the command line, or which file of ``--config`` and which line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITTEN_BY_PYTHON = "settings-of-python.yaml"
"""The name of a file that the package itself writes, so that no place in it helps anybody."""
_INNER = ("init_args", "class_path")
"""Parts of a dotted name that may be left out on the command line."""


@dataclass(frozen=True)
class Place:
    """Where the value of a setting was written.

    Args:
        name: the dotted name of the setting, without ``init_args`` and ``class_path``.
        value: the value, as it was written.
        words: the places of the option and its value in the command line.
        file: the file of ``--config`` that holds it; ``None`` if the command line does.
        line: the line in the file, from 1; 0 on the command line.
        is_class: whether the value is the name of a class.
    """

    name: str
    value: str
    words: range
    file: Path | None = None
    line: int = 0
    is_class: bool = False

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}" if self.file is not None else "the command line"


def short_name(name: str) -> str:
    """Returns a dotted name without ``init_args`` and ``class_path``, as it may be written on the command line."""
    return ".".join(part for part in name.split(".") if part not in _INNER)


def places(words: Sequence[str]) -> list[Place]:
    """Returns where each setting of a command line was written, in the order in which the parser reads them.

    Args:
        words: the command, then its options.
    """
    return list(_places(words))


def _places(words: Sequence[str]) -> Iterator[Place]:
    number = 1
    while number < len(words) and words[number] != "--":
        option, equals, value = words[number].partition("=")
        where = range(number, number + 1)
        has_value = not equals and number + 1 < len(words) and not words[number + 1].startswith("--")
        if option.startswith("--") and has_value:
            where, value = range(number, number + 2), words[number + 1]
        number = where.stop
        if option in ("--config", "-c"):
            yield from _in_file(Path(value), where)
        elif option.startswith("--"):
            name = option[2:].replace("-", "_").removesuffix("+")
            yield Place(short_name(name), value, where, is_class=name.endswith("class_path"))


def _in_file(path: Path, words: range) -> Iterator[Place]:
    with suppress(OSError, ValueError):  # of a file that is a stream, or cannot be read, the parser tells
        if path.is_file() and path.name != WRITTEN_BY_PYTHON:
            yield from (
                Place(short_name(name), value, words, path, line, name.endswith("class_path"))
                for name, value, line in yaml_settings(path.read_text(encoding="utf-8-sig"))
            )


def yaml_settings(text: str) -> list[tuple[str, str, int]]:
    """Returns the dotted name, the value and the line of each entry of a YAML text, sections before their entries.

    Args:
        text: the YAML; a text that is not YAML has no settings.
    """
    import yaml

    with suppress(yaml.YAMLError):
        return list(_entries("", yaml.compose(text, Loader=yaml.SafeLoader)))
    return []


def _entries(above: str, node: Any) -> Iterator[tuple[str, str, int]]:  # noqa: ANN401 - a node of PyYAML
    import yaml

    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            continue
        name = f"{above}.{key.value}" if above else str(key.value)
        yield name, value.value if isinstance(value, yaml.ScalarNode) else "", key.start_mark.line + 1
        yield from _entries(name, value)


def without_setting(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the settings of a YAML file without one of them.

    Args:
        content: the settings, as nested mappings.
        name: the dotted name of a setting, without ``init_args`` and ``class_path``.
    """
    kept: dict[str, Any] = {}
    for key, value in content.items():
        rest = name if key in _INNER else name.removeprefix(f"{key}.")
        if name == key or (key == "class_path" and not name):
            continue
        is_above = isinstance(value, Mapping) and (key in _INNER or rest != name)
        kept[key] = without_setting(value, rest) if is_above else value
    return kept
