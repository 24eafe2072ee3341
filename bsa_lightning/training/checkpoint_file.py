"""Reads and writes checkpoint files: written whole or not at all, flushed to the disk, and checked when read."""

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
"""The entries of a checkpoint of a fit, and their types."""


class CheckpointFile(CheckpointIO):
    """Writes a checkpoint to a partial file in the same folder, and renames it when it is complete.

    Lightning's own writer holds the checkpoint in memory a second time, and stages it in the folder for temporary
    files; moved from there to another file system, it can be cut short under its final name.
    """

    unproven: Path | None = None
    """The file that was read last, until the run has started from it; errors until then are due to its content."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        del storage_options
        # An open file of Python raises an error that names the fault of the disk; torch's own writer does not.
        with atomic_write(Path(path), durable=True) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Reads a checkpoint, without running code that it may contain.

        Args:
            path: the path of the checkpoint.
            map_location: the mapping of storages to devices, as for ``torch.load``; the default keeps them on the CPU.
            weights_only: ignored; code is never run.

        Raises:
            UserError: if the file is cut short, damaged, or not a checkpoint of ``lightning fit``.
        """
        del weights_only
        self.unproven = Path(path)
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch itself does not check the checksums
            if damaged is not None:
                raise zipfile.BadZipFile(f"{damaged} has changed")
            checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
            _refuse_foreign(checkpoint)
        except Exception as error:  # a damaged file can raise any error in its reader
            if isinstance(error, MemoryError) or (
                isinstance(error, OSError) and error.errno not in (errno.EINVAL, None)
            ):
                raise  # the machine is at fault, not the file
            raise UserError(
                f"{path} is damaged or not a checkpoint ({error}); start the run again"
                " (--overwrite true, without --ckpt_path)"
            ) from error
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def _refuse_foreign(checkpoint: dict[str, Any]) -> None:
    """Refuses content that ``lightning fit`` has not written.

    Raises:
        ValueError: if an entry is missing or of another type, or a weight is not finite.
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
