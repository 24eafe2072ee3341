"""A run is a folder: who may use it, and what it says about itself (``config.yaml``, ``environment.json``)."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bsa_lightning.errors import UserError
from bsa_lightning.files import whole, write_json

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
OUTPUTS = (
    CONFIG, ENVIRONMENT, "metrics.csv", "scores.csv", "scores.json",
    "checkpoints", "rounds", "samples", "model", "report", "rows", "differences.csv",
)  # fmt: skip
"""What a run writes, and ``--overwrite true`` removes. W&B keeps its own runs apart in ``wandb/``."""


class RunFolder:
    """The folder of one run.

    Args:
        path: of the folder.
        fresh: a new run, whatever the folder holds.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        known = path / ENVIRONMENT
        self.wandb_id: str = (
            uuid.uuid4().hex[:8] if fresh or not known.is_file() else json.loads(known.read_text())["wandb_id"]
        )
        """The same for every process that goes on with this run."""

    def refuse_if_used(self, *, overwrite: bool) -> None:
        """Allows a new run here, or says why not.

        Raises:
            UserError: if the folder holds a run and ``overwrite`` is false, or holds something else.
        """
        # A run that was refused while starting leaves its configuration and the folder of W&B.
        started = {CONFIG, ENVIRONMENT, "wandb"}
        if not self.path.exists() or (self.path.is_dir() and {path.name for path in self.path.iterdir()} <= started):
            return
        if not (self.path / ENVIRONMENT).is_file():
            raise UserError(f"run is {self.path}, which exists and is not a run's folder; name another with --run")
        if not overwrite:
            raise UserError(
                f"run is {self.path}, which holds a run already; go on with it (--ckpt_path last),"
                " replace it (--overwrite true) or name another with --run"
            )

    def clear(self) -> None:
        """Removes what an earlier run wrote here, and nothing else."""
        for name in OUTPUTS:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def record(self, config: Mapping[str, Any]) -> None:
        """Writes the resolved configuration, and the code and versions that run it."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / ENVIRONMENT, environment(wandb_id=self.wandb_id))
        with whole(self.path / CONFIG) as partial:
            partial.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def config(self) -> dict[str, Any]:
        """The recorded configuration; empty where there is none."""
        path = self.path / CONFIG
        content: dict[str, Any] = yaml.safe_load(path.read_text()) if path.is_file() else {}
        return content

    def refuse_contradiction(self, config: Mapping[str, Any], *, sections: tuple[str, ...]) -> None:
        """Refuses to go on with this run under another configuration.

        Raises:
            UserError: naming the first setting that differs from the recorded one.
        """
        recorded = self.config()
        for section in sections:
            for key, now, then in _differences(section, config.get(section), recorded.get(section)):
                raise UserError(
                    f"{key} is {now}, but {self.path} was made with {then};"
                    f" go on with its own configuration (--config {self.path / CONFIG}) or start another run"
                )


def environment(*, wandb_id: str) -> dict[str, Any]:
    """What ``environment.json`` says: git revision, Python, platform and the version of every package."""
    packages = {dist.name: dist.version for dist in importlib.metadata.distributions()}
    return {
        "git_revision": _git("rev-parse", "HEAD"),
        "git_changes": _git("status", "--porcelain", "--untracked-files=no").splitlines(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "wandb_id": wandb_id,
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _git(*arguments: str) -> str:
    """What git says about the folder of this package; empty where there is no git, or no repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _differences(key: str, now: object, then: object) -> Iterator[tuple[str, object, object]]:
    """Dotted keys in both whose values differ; what only one side names is no contradiction."""
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for name in now.keys() & then.keys():
            yield from _differences(f"{key}.{name}", now[name], then[name])
    elif then is not None and now != then:
        yield key, now, then
