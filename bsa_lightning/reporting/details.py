"""How a run came about: configuration, versions and hashes, from the files in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsa_lightning.files import read_json
from bsa_lightning.reporting.training import label

_PACKAGES = ("bsa-lightning", "torch", "lightning", "diffusers", "transformers")


@dataclass(frozen=True)
class Details:
    """Of one run: groups of (name, value) pairs to read at a glance, and the whole configuration."""

    run: str
    groups: dict[str, list[tuple[str, str]]]
    config: str


def read_details(run: Path) -> Details:
    """What is there of ``config.yaml``, ``environment.json`` and ``scores.json``."""
    import yaml

    path = run / "config.yaml"
    text = path.read_text() if path.is_file() else ""
    config = yaml.safe_load(text) or {}
    groups = {
        "Model": _settings(config, "model"),
        "Data": _settings(config, "data"),
        "Software": _environment(run / "environment.json"),
        "Scored with": _hashes(run / "scores.json"),
    }
    return Details(label([run]), {title: pairs for title, pairs in groups.items() if pairs}, text)


def plain(value: Any) -> str:  # noqa: ANN401, a value of YAML
    """A value of a configuration in one line: a class as a call, for example ``BSA(gamma 5.0)``."""
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


def _settings(config: dict[str, Any], part: str) -> list[tuple[str, str]]:
    settings = (config.get(part) or {}).get("init_args") or {}
    return [(_words(name), plain(value)) for name, value in settings.items()]


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _environment(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    content = read_json(path)
    pairs = []
    if revision := content.get("git_revision"):
        changes = content.get("git_changes") or []
        changed = f", with {len(changes)} changed file{'s' if len(changes) > 1 else ''}" if changes else ""
        pairs.append(("Git revision", f"{revision[:12]}{changed}"))
    packages = content.get("packages") or {}
    versions = [f"{name} {packages[name]}" for name in _PACKAGES if name in packages]
    pairs.append(("Versions", ", ".join([f"Python {content.get('python', '?')}", *versions])))
    return [*pairs, ("Platform", str(content.get("platform", "?")))]


def _hashes(path: Path) -> list[tuple[str, str]]:
    """What the scores rest on; a hash by its first digits."""
    if not path.is_file():
        return []
    return [
        (_words(name), value[:16] if isinstance(value, str) else plain(value))
        for name, value in read_json(path).items()
    ]
