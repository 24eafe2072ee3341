"""The folder of a run: who may use it, and its record of itself (``config.yaml``, ``environment.json``)."""

from __future__ import annotations

import functools
import importlib.metadata
import os
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
"""The names of the files to which schedulers and shells write the output of a job."""
_PATIENCE = 5.0
"""The time to wait for the lock, which a process that is about to end may hold, in seconds."""


class RunFolder:
    """The folder of one run.

    Args:
        path: the path of the folder, which need not exist yet.
        fresh: whether this is a new run, whatever the folder holds.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        self.fresh = fresh

    @functools.cached_property
    def wandb_id(self) -> str:
        """The id of the run on W&B, which all processes of this run share, those that resume it included.

        Raises:
            UserError: if ``environment.json`` has no id.
        """
        known = self.path / ENVIRONMENT
        if self.fresh or not known.is_file():
            return uuid.uuid4().hex[:8]
        found = read_json(known).get("wandb_id")
        if not isinstance(found, str) or not re.fullmatch(r"[\w-]{1,64}", found):
            raise UserError(f"{known} has {found!r} for its wandb_id; bring the file back, or replace the run")
        return found

    def locked(self) -> AbstractContextManager[None]:
        """Returns a context that locks the folder against other processes that would write to it.

        Raises:
            UserError: if another process holds the lock.
        """
        refuse_file(self.path, setting="run")
        busy = f"run is {self.path}, where another process is at work; wait until it has ended, or name another run"
        return locked(self.path, wait=_PATIENCE, busy=busy)

    @property
    def last_checkpoint(self) -> Path:
        """The path of the checkpoint from which the run is resumed."""
        return self.path / "checkpoints" / "last.ckpt"

    def refuse_lost_checkpoint(self) -> None:
        """Refuses to start at the beginning for want of a checkpoint, if the run has had one.

        Raises:
            UserError: if the folder holds results that are only written after the first checkpoint.
        """
        if done := [name for name in ("rounds", "model", "scores.csv", "samples") if (self.path / name).exists()]:
            raise UserError(
                f"ckpt_path is last, but {self.path} has {done[0]} and no checkpoint to go on from; bring"
                f" {self.last_checkpoint} back, or replace the run (--overwrite true, without --ckpt_path)"
            )

    def refuse_foreign(self) -> None:
        """Refuses a folder with foreign files that a run would replace; others, such as a job's log, may stay.

        Raises:
            UserError: if the folder is not a run's, and a file or folder in it has a name that a run writes.
        """
        if not (self.path / ENVIRONMENT).is_file() and (taken := [n for n in OUTPUTS if (self.path / n).exists()]):
            raise UserError(
                f"run is {self.path}, which holds {taken[0]} but is not a run's folder; name another with --run"
            )

    def refuse_if_used(self, *, overwrite: bool, config: Mapping[str, Any]) -> None:
        """Refuses a folder in which a new run cannot be started.

        Args:
            overwrite: whether a run that is there may be replaced.
            config: the resolved configuration of the new run.

        Raises:
            UserError: if the folder holds a run and ``overwrite`` is false, if the new run needs what would be removed
                with the old one, or if the folder holds something else.
        """
        refuse_file(self.path, setting="run")
        found = [path.name for path in self.path.iterdir() if not is_partial(path)] if self.path.is_dir() else []
        # A run that was refused while starting leaves its configuration and the folder of W&B; a killed run leaves
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
        parts = {name: config[name] for name in ("model", "data", "scoring") if name in config}
        for key, value in _texts("", parts):
            if self._would_remove(value):
                raise UserError(
                    f"{key} is {value}, which would be removed with the run that --overwrite true replaces; name"
                    " another folder with --run, or copy it out first"
                )

    def _would_remove(self, text: str) -> bool:
        """Returns whether a text is a path, with a separator, to something that :meth:`clear` removes, or parts of."""
        if os.sep not in text or not os.path.exists(text):  # noqa: PTH110 - that of pathlib raises for long names
            return False
        run, path = self.path.resolve(), Path(text).resolve()
        removed = [place.resolve() for name in OUTPUTS for place in self._removed(name)]
        is_in_run = path == run or run in path.parents
        return is_in_run and any(path == place or place in path.parents or path in place.parents for place in removed)

    def _removed(self, name: str) -> list[Path]:
        """Returns what :meth:`clear` removes of one of ``OUTPUTS``."""
        patterns = INSIDE.get(name)
        if patterns is None:
            return [self.path / name]
        return [path for pattern in patterns for path in sorted((self.path / name).glob(pattern))]

    def clear(self) -> None:
        """Removes what an earlier run has written to this folder, and nothing else."""
        for name in OUTPUTS:
            for path in self._removed(name):
                remove(path)
            folder = self.path / name
            if name in INSIDE and folder.is_dir():
                for inside in (*folder.iterdir(), folder):
                    with suppress(OSError):  # it is not a folder, or holds files of the user's
                        inside.rmdir()

    def record(self, config: Mapping[str, Any]) -> None:
        """Writes the resolved configuration, and the revision of the code and the versions of all packages."""
        make_folder(self.path)
        write_json(self.path / ENVIRONMENT, environment(wandb_id=self.wandb_id))
        with atomic_write(self.path / CONFIG) as partial:
            partial.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")

    def config(self) -> dict[str, Any]:
        """Returns the recorded configuration, which is empty if nothing is recorded."""
        path = self.path / CONFIG
        return read_yaml(path) if path.is_file() else {}

    def refuse_contradiction(self, config: Mapping[str, Any], *, sections: tuple[str, ...]) -> None:
        """Refuses to resume or score this run under another configuration.

        Args:
            config: the resolved configuration.
            sections: the prefixes of the dotted keys that must be as recorded.

        Raises:
            UserError: if a setting differs from the recorded one.
        """
        recorded = self.config()
        plan = settings_of(recorded, sections=("model.init_args.plan.",))
        if any(plan.get(f"model.init_args.plan.{name}") is not None for name in ("patience", "most_updates")):
            sections = (*sections, *VALIDATED_BY)
        self.refuse_other(settings_of(config, sections=sections), settings_of(recorded, sections=sections))

    def refuse_other(self, now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
        """Refuses settings that have changed.

        Args:
            now: the settings of this process, by dotted key.
            then: the settings of the process that has started the run, by dotted key.

        Raises:
            UserError: if a setting differs, and both sides know it.
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
    """Returns settings by dotted key, without those that may change from one start of a run to the next.

    Args:
        config: the resolved configuration.
        sections: the prefixes of the dotted keys of the settings.
    """
    leaves = _leaves("", config)
    return {key: value for key, value in leaves if key.startswith(sections) and not HARMLESS.search(key)}


def environment(*, wandb_id: str) -> dict[str, Any]:
    """Returns the content of ``environment.json``: git revision, Python, platform, and the versions of all packages.

    Args:
        wandb_id: the id of the run on W&B.
    """
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
    """Returns the output of a git command in the folder of this package; empty without git or a repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


_UNKNOWN = object()


def _value(leaves: Mapping[str, object], key: str) -> object:
    """Returns the value of a dotted key: ``None`` if a section above it is ``None``, ``_UNKNOWN`` if it is missing."""
    parts = key.split(".")
    above = (".".join(parts[:i]) for i in range(len(parts), 0, -1))
    return next((leaves[name] for name in above if name in leaves and (name == key or leaves[name] is None)), _UNKNOWN)


def _leaves(key: str, content: object) -> Iterator[tuple[str, object]]:
    """Yields the dotted keys and the values of a nested configuration."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _leaves(f"{key}.{name}" if key else str(name), value)
    else:
        yield key, content


def _texts(key: str, content: object) -> Iterator[tuple[str, str]]:
    """Yields the dotted keys and the values of all texts in a nested configuration, those in lists too."""
    items = content.items() if isinstance(content, Mapping) else enumerate(content) if isinstance(content, list) else ()
    for name, value in items:
        yield from _texts(f"{key}.{name}" if key else str(name), value)
    if isinstance(content, str):
        yield key, content
