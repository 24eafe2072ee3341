"""Checkpoints hold the student; the teacher is a folder, referred to by path and digest and verified on resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bsa_lightning.errors import UserError
from bsa_lightning.teachers.base import Denoiser
from bsa_lightning.teachers.folder import folder_sha256, load_denoiser, resolve_folder

_PREFIX = "teacher."


def drop_teacher(checkpoint: dict[str, Any], *, folder: Path | str, sha256: str) -> None:
    """Takes the teacher's weights out of a checkpoint and notes where they are."""
    weights = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: tensor for name, tensor in weights.items() if not name.startswith(_PREFIX)}
    checkpoint["teacher"] = {"folder": str(folder), "sha256": sha256}


def restore_teacher(
    checkpoint: dict[str, Any], run_folder: Path, *, dtype: torch.dtype
) -> tuple[Denoiser, Path | str, str]:
    """Loads the teacher that a checkpoint refers to, and completes the checkpoint's weights with it.

    Returns:
        The teacher, and its folder and digest as the checkpoint names them.

    Raises:
        UserError: if the folder is gone or holds other weights than when the checkpoint was written.
    """
    folder, sha256 = checkpoint["teacher"]["folder"], checkpoint["teacher"]["sha256"]
    inside_run = run_folder / folder
    where = inside_run if inside_run.is_dir() else resolve_folder(folder)
    if folder_sha256(where) != sha256:
        raise UserError(f"{where} holds another teacher than the checkpoint was trained with; bring that one back")
    teacher = load_denoiser(where, dtype=dtype)
    checkpoint["state_dict"].update({_PREFIX + name: tensor for name, tensor in teacher.state_dict().items()})
    return teacher, folder, sha256
