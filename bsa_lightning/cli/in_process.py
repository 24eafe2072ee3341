"""Runs a command of the command line in the current process, with settings that are given as a mapping."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from bsa_lightning.cli import fit
from bsa_lightning.cli.as_config import as_config
from bsa_lightning.cli.messages import sentence
from bsa_lightning.cli.setting_places import WRITTEN_BY_PYTHON
from bsa_lightning.common.errors import UserError

_PROGRAM = Path(__file__).parents[1] / "__main__.py"
"""The file that the processes of other ranks are started from."""
_LAUNCHED = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The environment variables that Lightning sets when it starts the processes of other ranks."""


def run_in_process(
    command: str, config: Mapping[str, Any], settings: Mapping[str, object] | None, *, only_check: bool = False
) -> None:
    """Runs ``lightning COMMAND`` in this process.

    Args:
        command: "fit" or "test".
        config: the settings as YAML has them.
        settings: further settings by dotted name, which go before ``config``.
        only_check: whether to stop when all settings are read and everything is built from them, before any work.

    Raises:
        UserError: if a setting is wrong.
    """
    before = sys.argv
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _processes_of_its_own():
        path = Path(folder) / WRITTEN_BY_PYTHON
        path.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
        words = [command, "--config", str(path)]
        for name, value in (settings or {}).items():
            words.append(f"--{name}={value if isinstance(value, str) else json.dumps(as_config(value))}")
        sys.argv = [str(_PROGRAM), *words]
        try:
            fit.run(words, only_check=only_check, is_part=True)
        except Exception as error:
            if isinstance(error, UserError) or (text := sentence(error)) is None:
                raise
            raise UserError(text) from error
        finally:
            sys.argv = before


@contextmanager
def _processes_of_its_own() -> Iterator[None]:
    """A context for a command with several ranks, after which the next command can start its own processes.

    Lightning leaves its process group and environment behind, for its commands end with their process. Where a launcher
    such as torchrun has started this process, the ranks are those of all commands.
    """
    before = {name: os.environ[name] for name in _LAUNCHED if name in os.environ}
    try:
        yield
    finally:
        if "LOCAL_RANK" not in before:
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            for name in _LAUNCHED:
                os.environ.pop(name, None)
            os.environ.update(before)
