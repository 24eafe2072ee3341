"""Which runs repeat one another: they are trained alike, but for the seed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

TRAINER = ("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
"""Settings of the trainer that change students."""


class Training(NamedTuple):
    """How a run was trained: all that decides its students but the seed, as text, and the seed."""

    setting: str
    seed: int


def read_training(run: Path) -> Training:
    """From ``config.yaml``; a run without one repeats none."""
    import yaml

    path = run / "config.yaml"
    config: dict[str, Any] = (yaml.safe_load(path.read_text()) if path.is_file() else None) or {}
    if "seed_everything" not in config:
        return Training(str(run.resolve()), 0)
    parts = {part: _without_seed(config.get(part)) for part in ("model", "data")}
    trainer = config.get("trainer") or {}
    setting = json.dumps([parts, {name: trainer.get(name) for name in TRAINER}], sort_keys=True, default=str)
    return Training(setting, int(config["seed_everything"]))


def label(runs: Sequence[Path]) -> str:
    """What repeats have in common in their names: ``bsa`` of ``bsa-0`` and ``bsa-1``, or of ``bsa/0`` and ``bsa/1``."""
    names = [f"{run.parent.name}-{run.name}" if run.name.isdigit() else run.name for run in runs]
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


def _without_seed(section: Any) -> Any:  # noqa: ANN401, a value of YAML
    if not isinstance(section, dict):
        return section
    arguments = section.get("init_args") or {}
    return {**section, "init_args": {name: value for name, value in arguments.items() if name != "seed"}}
