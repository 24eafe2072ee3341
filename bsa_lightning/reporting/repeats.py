"""Which runs repeat one another: they are trained alike, but for the seed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_seed
from bsa_lightning.common.yaml_text import read_yaml
from bsa_lightning.training.run_files import CONFIG, TRAINED_BY_TRAINER


class Training(NamedTuple):
    """How a run was trained: all that decides its students but the seed, as text, and the seed."""

    setting: str
    seed: int


def read_training(run: Path) -> Training:
    """From ``config.yaml``; a run without one repeats none."""
    config = read_config(run)
    if isinstance(config.get("seed_everything"), bool | None):  # Lightning's words for a seed of its own, and for none
        return Training(str(run.resolve()), 0)
    check_seed(f"seed_everything of {run / CONFIG}", config["seed_everything"])
    parts = {part: _without_seed(section(config, run, part)) for part in ("model", "data")}
    trainer = section(config, run, "trainer")
    setting = json.dumps([parts, {name: trainer.get(name) for name in TRAINED_BY_TRAINER}], sort_keys=True, default=str)
    return Training(setting, config["seed_everything"])


def read_config(run: Path) -> dict[str, Any]:
    """The configuration of a run; empty where there is none.

    Raises:
        UserError: if ``config.yaml`` is not what a run writes.
    """
    path = run / CONFIG
    return read_yaml(path) if path.exists() else {}


def section(config: Mapping[str, Any], run: Path, *names: str) -> dict[str, Any]:
    """A part of the configuration of a run, by the names on the way to it; empty where there is none.

    Raises:
        UserError: if something else is in its place.
    """
    found: Any = config
    for name in names:
        found = found.get(name)
        if found is None:
            return {}
        if not isinstance(found, dict):
            place = ".".join(names)
            raise UserError(f"{run / CONFIG} has {found!r} where the settings of {place} belong; bring the file back")
    return dict(found)


def readable(text: str) -> str:
    """A name of a file as text in one line: what is no character, or moves the next line, is shown as one."""
    decoded = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in decoded)


def label(runs: Sequence[Path]) -> str:
    """What repeats have in common in their names: ``bsa`` of ``bsa-0`` and ``bsa-1``, or of ``bsa/0`` and ``bsa/1``."""
    full = [run.resolve() if run.name in ("", "..") else run for run in runs]
    names = [readable(f"{run.parent.name}-{run.name}" if run.name.isdigit() else run.name) for run in full]
    if len(names) == 1:
        return names[0]
    shared = os.path.commonprefix(names).rstrip("0123456789")  # noqa: RUF071, by characters is what is wanted
    return shared.rstrip("-_. ") or names[0]


def one_of_each(runs: Sequence[Path]) -> list[Path]:
    """The first of runs that repeat one another."""
    found: dict[str, Path] = {}
    for run in runs:
        found.setdefault(read_training(run).setting, run)
    return list(found.values())


def _without_seed(settings: dict[str, Any]) -> dict[str, Any]:
    arguments = settings.get("init_args")
    if not isinstance(arguments, dict):
        return settings
    return {**settings, "init_args": {name: value for name, value in arguments.items() if name != "seed"}}
