"""Checkpoints as files: whole or not there, on the disk when the run goes on, and checked when they are read."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write

_KINDS = {
    "pytorch-lightning_version": str,
    "state_dict": dict,
    "global_step": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
"""What a checkpoint of a fit holds."""


class CheckpointFile(CheckpointIO):
    """Streams a checkpoint to a file beside its final name.

    Lightning's own holds it in memory a second time and stages it in the folder for temporary files; moved from
    there to another file system, it can be cut short under its final name.

    ``unproven`` is the file that was read last, until the run has started from it: what goes wrong in between is
    because of what it holds.
    """

    unproven: Path | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        del storage_options
        # Through a file of Python's, which says what was wrong with the disk; torch's own writer does not.
        with atomic_write(Path(path), durable=True) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Reads a checkpoint, never running code that it may hold.

        Raises:
            UserError: if it is cut short, damaged, or not a checkpoint.
        """
        del weights_only
        self.unproven = Path(path)
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch itself does not look at the checksums
            if damaged is not None:
                raise zipfile.BadZipFile(f"{damaged} has changed")
            checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
            _refuse_foreign(checkpoint)
        except Exception as error:  # whatever a damaged file makes of its reader
            if isinstance(error, MemoryError) or (
                isinstance(error, OSError) and error.errno not in (errno.EINVAL, None)
            ):
                raise  # which says nothing of the file
            raise UserError(
                f"{path} is damaged or no checkpoint ({error}); start the run anew"
                " (--overwrite true, without --ckpt_path)"
            ) from error
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def _refuse_foreign(checkpoint: dict[str, Any]) -> None:
    """Refuses what no ``fit`` has written.

    Raises:
        ValueError: saying what is wrong.
    """
    for name, kind in _KINDS.items():
        if not isinstance(checkpoint.get(name), kind):
            raise ValueError(f"it has no {name}")
    if checkpoint["global_step"] < 0 or not checkpoint["optimizer_states"]:
        raise ValueError("it is not of a training")
    if not any(name.startswith("ResumePoint") for name in checkpoint["callbacks"]):
        raise ValueError("it is not of lightning fit")
    for name, tensor in checkpoint["state_dict"].items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"its weights are not finite, such as {name}")
