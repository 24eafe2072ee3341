"""Runs that are repeats of one another, which differ in their seed only; and the configuration and names of runs."""

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
    """The training of a run; runs are repeats if their settings are equal."""

    setting: str
    """Everything that decides the students, except for the seed, as text."""
    seed: int
    """The training seed."""


def read_training(run: Path) -> Training:
    """Returns the training of a run, as ``config.yaml`` has it; a run without that file or a seed has no repeats."""
    config = read_config(run)
    if isinstance(config.get("seed_everything"), bool | None):  # Lightning draws a seed, or sets none
        return Training(str(run.resolve()), 0)
    check_seed(f"seed_everything of {run / CONFIG}", config["seed_everything"])
    parts = {part: _without_seed(section(config, run, part)) for part in ("model", "data")}
    trainer = section(config, run, "trainer")
    setting = json.dumps([parts, {name: trainer.get(name) for name in TRAINED_BY_TRAINER}], sort_keys=True, default=str)
    return Training(setting, config["seed_everything"])


def read_config(run: Path) -> dict[str, Any]:
    """Returns the configuration of a run; empty if it has no ``config.yaml``.

    Raises:
        UserError: if ``config.yaml`` is not one that a run has written.
    """
    path = run / CONFIG
    return read_yaml(path) if path.exists() else {}


def section(config: Mapping[str, Any], run: Path, *names: str) -> dict[str, Any]:
    """Returns a section of a configuration; empty if it is missing.

    Args:
        config: the configuration of the run.
        run: the folder of the run, for the message.
        names: the names of the sections from the outermost to the one that is asked for.

    Raises:
        UserError: if a value that is not a section has one of the names.
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
    """Returns the name of a file as one line of text, with replacement characters for what cannot be printed."""
    decoded = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in decoded)


def label(runs: Sequence[Path]) -> str:
    """Returns the common name of repeats: ``bsa`` for ``bsa-0`` and ``bsa-1``, or for ``bsa/0`` and ``bsa/1``."""
    full = [run.resolve() if run.name in ("", "..") else run for run in runs]
    names = [readable(f"{run.parent.name}-{run.name}" if run.name.isdigit() else run.name) for run in full]
    if len(names) == 1:
        return names[0]
    shared = os.path.commonprefix(names).rstrip("0123456789")  # noqa: RUF071, by characters is what is wanted
    return shared.rstrip("-_. ") or names[0]


def one_of_each(runs: Sequence[Path]) -> list[Path]:
    """Returns the first run of each group of repeats."""
    found: dict[str, Path] = {}
    for run in runs:
        found.setdefault(read_training(run).setting, run)
    return list(found.values())


def _without_seed(settings: dict[str, Any]) -> dict[str, Any]:
    arguments = settings.get("init_args")
    if not isinstance(arguments, dict):
        return settings
    return {**settings, "init_args": {name: value for name, value in arguments.items() if name != "seed"}}
