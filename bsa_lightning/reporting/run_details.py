"""The details of a run for the page: configuration, versions and hashes, from the files in its folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.reporting.repeats import CONFIG, label, read_config, section

Kind = TypeVar("Kind", bound=list[Any] | dict[str, Any])

_STUDENT = re.compile(r"(\d+)-\d+steps")
"""The name of the folder of a round's student."""
_PACKAGES = ("bsa-lightning", "torch", "lightning", "diffusers", "transformers")


@dataclass(frozen=True)
class Details:
    """The details of one run."""

    run: str
    """The name of the run."""
    groups: dict[str, list[tuple[str, str]]]
    """Pairs of name and value, by the title of their group."""
    config: str
    """The text of ``config.yaml``; empty if there is no such file."""


def read_details(run: Path) -> Details:
    """Returns the details in ``config.yaml``, ``environment.json`` and ``scores.json``, as far as they exist."""
    config = read_config(run)
    text = (run / CONFIG).read_text(encoding="utf-8-sig") if config else ""
    groups = {
        "Model": _settings(section(config, run, "model", "init_args")),
        "Rounds": _rounds(run),
        "Data": _settings(section(config, run, "data", "init_args")),
        "Software": _environment(run / "environment.json"),
        "Scored with": _hashes(run / "scores.json"),
    }
    return Details(label([run]), {title: pairs for title, pairs in groups.items() if pairs}, text)


def plain(value: Any) -> str:  # noqa: ANN401, a value of YAML
    """Returns a value of a configuration as one line, with classes as calls, for example ``BSA(gamma 5.0)``."""
    match value:
        case {"class_path": str(path)}:
            settings = plain(value.get("init_args") or {})
            return path.rpartition(".")[2] + (f"({settings})" if settings else "")
        case dict():
            return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
        case list():
            return f"[{', '.join(map(plain, value))}]"
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)


def _settings(settings: dict[str, Any]) -> list[tuple[str, str]]:
    return [(_words(name), plain(value)) for name, value in settings.items()]


def _rounds(run: Path) -> list[tuple[str, str]]:
    """Returns what was decided in each adaptive round, from the provenance of its student."""
    decided = []
    named = ((path, _STUDENT.fullmatch(path.parent.name)) for path in run.glob("rounds/*/provenance.json"))
    for _, path in sorted((int(name[1]), path) for path, name in named if name is not None):
        content = read_json(path)
        budget = _of_kind(content, "budget", dict, path)
        decisions = [str(decision) for decision in _of_kind(budget, "decisions", list, path)]
        decided += [(f"Round {content.get('round')}, {content.get('num_steps')} steps", text) for text in decisions]
    return decided


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _environment(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    content = read_json(path)
    pairs = []
    if isinstance(revision := content.get("git_revision"), str) and revision:
        changes = _of_kind(content, "git_changes", list, path)
        changed = f", with {len(changes)} changed file{'s' if len(changes) > 1 else ''}" if changes else ""
        pairs.append(("Git revision", f"{revision[:12]}{changed}"))
    packages = _of_kind(content, "packages", dict, path)
    versions = [f"{name} {packages[name]}" for name in _PACKAGES if name in packages]
    pairs.append(("Versions", ", ".join([f"Python {content.get('python', '?')}", *versions])))
    return [*pairs, ("Platform", str(content.get("platform", "?")))]


def _of_kind(content: dict[str, Any], name: str, kind: type[Kind], path: Path) -> Kind:
    found = content.get(name) or kind()
    if not isinstance(found, kind):
        raise UserError(f"{path} has {found!r} as its {name}; bring the file back, or remove it")
    return found


def _hashes(path: Path) -> list[tuple[str, str]]:
    """Returns the entries of the score card, with hashes cut to their first digits."""
    if not path.is_file():
        return []
    return [
        (_words(name), value[:16] if isinstance(value, str) else plain(value))
        for name, value in read_json(path).items()
    ]
