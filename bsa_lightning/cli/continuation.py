"""Which checkpoint a command goes on from, and whether the run is the one that its settings describe."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from bsa_lightning.common.errors import UserError
from bsa_lightning.training.run_files import TRAINED_BY
from bsa_lightning.training.run_folder import RunFolder


def resolve_checkpoint(
    command: str, config: Namespace, path: str | None, dumped: Mapping[str, Any], locks: ExitStack
) -> tuple[str | None, bool]:
    """Returns the checkpoint to go on from, or to validate, and whether a run is to begin for want of a checkpoint.

    ``validate`` takes the last checkpoint of the run, unless another is named. ``fit --ckpt_path last`` goes on where
    the run was stopped, which is the beginning if it was stopped before its first checkpoint.

    Args:
        command: "fit", "validate", "test" or "predict".
        config: the settings of the command; ``overwrite`` becomes true where a run begins.
        path: the checkpoint that was given; ``None`` if none was.
        dumped: the resolved configuration, as a run records it.
        locks: the stack that holds the lock of the run folder.

    Raises:
        UserError: if there is no such checkpoint, or naming the settings that differ.
    """
    fit, begins = command == "fit", False
    if not config.run.strip():
        raise UserError("run is empty; name a folder, such as runs/demo")
    folder = RunFolder(Path(config.run))
    if command == "test" and not folder.path.is_dir():
        raise UserError(f"run is {folder.path}, but no such folder exists; run lightning fit first")
    if command != "validate":
        rank_zero_only(lambda: locks.enter_context(folder.locked()))()
    if path == "last" or (path is None and command == "validate"):
        path = str(folder.last_checkpoint)
        if fit and not folder.last_checkpoint.is_file():
            rank_zero_only(folder.refuse_foreign)()
            folder.refuse_lost_checkpoint()
            begins = True
            rank_zero_info(f"{folder.path} has no checkpoint yet: it starts at the beginning")
            config.overwrite, path = True, None
    if path is not None and not Path(path).is_file():
        hint = "`--ckpt_path last` goes on where the run was stopped" if fit else "run lightning fit first"
        raise UserError(f"ckpt_path is {path}, but there is no such file; {hint}")
    if path is not None or command == "test":
        run = folder if path is None else RunFolder(Path(path).parent.parent)
        run.refuse_contradiction(dumped, sections=TRAINED_BY if fit else ("model.",))
    return path, begins
