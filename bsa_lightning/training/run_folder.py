"""A run is a folder: who may use it, and what it says about itself (``config.yaml``, ``environment.json``)."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import yaml

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write, is_partial, make_folder, read_json, refuse_file, remove, write_json
from bsa_lightning.common.locks import LOCK, locked
from bsa_lightning.common.yaml_text import read_yaml
from bsa_lightning.training.run_files import CONFIG, ENVIRONMENT, HARMLESS, INSIDE, OUTPUTS, TRAINED_BY, VALIDATED_BY

_LOG = re.compile(r".*\.(out|err|log)|nohup\.out")
"""Names of the files that schedulers and shells write what a job prints to."""
_PATIENCE = 5.0
"""Seconds to wait for the lock of a process that is about to end."""


class RunFolder:
    """The folder of one run.

    Args:
        path: of the folder.
        fresh: a new run, whatever the folder holds.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        self.fresh = fresh

    @functools.cached_property
    def wandb_id(self) -> str:
        """The same for every process that goes on with this run.

        Raises:
            UserError: if the run has lost it.
        """
        known = self.path / ENVIRONMENT
        if self.fresh or not known.is_file():
            return uuid.uuid4().hex[:8]
        found = read_json(known).get("wandb_id")
        if not isinstance(found, str) or not re.fullmatch(r"[\w-]{1,64}", found):
            raise UserError(f"{known} has {found!r} for its wandb_id; bring the file back, or replace the run")
        return found

    def locked(self) -> AbstractContextManager[None]:
        """Holds the run's folder against every other process that would write to it.

        Raises:
            UserError: if one is at work there.
        """
        refuse_file(self.path, setting="run")
        busy = f"run is {self.path}, where another process is at work; wait until it has ended, or name another run"
        return locked(self.path, wait=_PATIENCE, busy=busy)

    @property
    def last_checkpoint(self) -> Path:
        """Where the run would go on."""
        return self.path / "checkpoints" / "last.ckpt"

    def refuse_lost_checkpoint(self) -> None:
        """Allows to start at the beginning where there is no checkpoint.

        Raises:
            UserError: if the run has got further than that.
        """
        if done := [name for name in ("rounds", "model", "scores.csv", "samples") if (self.path / name).exists()]:
            raise UserError(
                f"ckpt_path is last, but {self.path} has {done[0]} and no checkpoint to go on from; bring"
                f" {self.last_checkpoint} back, or replace the run (--overwrite true, without --ckpt_path)"
            )

    def refuse_foreign(self) -> None:
        """Allows to write a run beside what others have put into its folder, such as the log of a scheduler's job.

        Raises:
            UserError: if something there has a name that a run writes.
        """
        if not (self.path / ENVIRONMENT).is_file() and (taken := [n for n in OUTPUTS if (self.path / n).exists()]):
            raise UserError(
                f"run is {self.path}, which holds {taken[0]} but is not a run's folder; name another with --run"
            )

    def refuse_if_used(self, *, overwrite: bool) -> None:
        """Allows a new run here, or says why not.

        Raises:
            UserError: if the folder holds a run and ``overwrite`` is false, or holds something else.
        """
        refuse_file(self.path, setting="run")
        found = [path.name for path in self.path.iterdir() if not is_partial(path)] if self.path.is_dir() else []
        # A run that was refused while starting leaves its configuration and the folder of W&B; one that was killed,
        # what it had begun to write.
        started = {LOCK, "wandb", *({CONFIG, ENVIRONMENT} if ENVIRONMENT in found else ())}
        if started.issuperset(found):
            return
        if ENVIRONMENT not in found:
            self.refuse_foreign()
            if not all(_LOG.fullmatch(name) for name in found if name not in started):
                raise UserError(f"run is {self.path}, which exists and is not a run's folder; name another with --run")
            return
        if not overwrite:
            raise UserError(
                f"run is {self.path}, which holds a run already; name another with --run, replace this one"
                " (--overwrite true), or go on with its fit (--ckpt_path last)"
            )

    def clear(self) -> None:
        """Removes what an earlier run wrote here, and nothing else."""
        for name in OUTPUTS:
            folder = self.path / name
            for pattern in INSIDE.get(name, ()):
                for path in sorted(folder.glob(pattern)):
                    remove(path)
            if name not in INSIDE:
                remove(folder)
            elif folder.is_dir():
                for inside in (*folder.iterdir(), folder):
                    with suppress(OSError):  # it is no folder, or something of the user's is left in it
                        inside.rmdir()

    def record(self, config: Mapping[str, Any]) -> None:
        """Writes the resolved configuration, and the code and versions that run it."""
        make_folder(self.path)
        write_json(self.path / ENVIRONMENT, environment(wandb_id=self.wandb_id))
        with atomic_write(self.path / CONFIG) as partial:
            partial.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")

    def config(self) -> dict[str, Any]:
        """The recorded configuration; empty where there is none."""
        path = self.path / CONFIG
        return read_yaml(path) if path.is_file() else {}

    def refuse_contradiction(self, config: Mapping[str, Any], *, sections: tuple[str, ...]) -> None:
        """Refuses to go on with this run under another configuration.

        Raises:
            UserError: naming the settings that differ from the recorded ones.
        """
        recorded = self.config()
        if dict(_leaves("", recorded)).get("model.init_args.plan.patience") is not None:
            sections = (*sections, *VALIDATED_BY)
        self.refuse_other(settings_of(config, sections=sections), settings_of(recorded, sections=sections))

    def refuse_other(self, now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
        """Refuses settings that are not those of before, both by dotted key.

        Raises:
            UserError: naming those that differ.
        """
        differing = {
            key: pair
            for key in sorted(then.keys() | now.keys())
            if (pair := (_value(now, key), _value(then, key)))[0] != pair[1] and _UNKNOWN not in pair
        }
        if differing:
            changes = ", ".join(f"{key} is {ours} and was {theirs}" for key, (ours, theirs) in differing.items())
            raise UserError(
                f"{changes}; go on with {self.path} under the settings that it had ({CONFIG} there holds them, unless"
                " it was changed), or start another run"
            )


def settings_of(config: Mapping[str, Any], *, sections: tuple[str, ...] = TRAINED_BY) -> dict[str, Any]:
    """The settings of some sections by dotted key, without those that may change from one start to the next."""
    leaves = _leaves("", config)
    return {key: value for key, value in leaves if key.startswith(sections) and not HARMLESS.search(key)}


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


_UNKNOWN = object()


def _value(leaves: Mapping[str, object], key: str) -> object:
    """Of a dotted key: None too where all of the part that it is in is none; unknown where nothing is said of it."""
    parts = key.split(".")
    above = (".".join(parts[:i]) for i in range(len(parts), 0, -1))
    return next((leaves[name] for name in above if name in leaves and (name == key or leaves[name] is None)), _UNKNOWN)


def _leaves(key: str, content: object) -> Iterator[tuple[str, object]]:
    """Dotted keys and values of a nested configuration."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _leaves(f"{key}.{name}" if key else str(name), value)
    else:
        yield key, content
