"""The teachers of a run: the one of a round, which checkpoints refer to, and the first, which is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import folder_sha256, load_denoiser
from bsa_lightning.models.registry import resolve_folder

_PREFIX = "teacher."


@dataclass(frozen=True)
class TeacherReference:
    """Where the teacher of a round is. The run may move, and so may the first teacher: digests tell whether it is it.

    Args:
        first_sha256: of the first teacher's folder.
        student: the folder in the run of the student that has become the teacher; none is the first teacher.
        sha256: of the teacher's folder.
    """

    first_sha256: str
    student: str | None
    sha256: str

    def load(self, *, first: str, run_folder: Path, dtype: torch.dtype) -> Denoiser:
        """The teacher, from the run or from the folder ``first``.

        Raises:
            UserError: if a folder is gone or holds other weights than when the checkpoint was written.
        """
        if folder_sha256(first) != self.first_sha256:
            raise UserError(f'teacher is "{first}", but the run began with another one; name the folder that holds it')
        where = resolve_folder(first) if self.student is None else run_folder / self.student
        if not where.is_dir():
            raise UserError(f"{where}, the teacher of the checkpoint's round, is gone; bring it back")
        if folder_sha256(where) != self.sha256:
            raise UserError(f"{where} holds another teacher than the checkpoint was trained with; bring that one back")
        return load_denoiser(where, dtype=dtype)


def drop_teacher(checkpoint: dict[str, Any], reference: TeacherReference) -> None:
    """Takes the teacher's weights out of a checkpoint and notes where they are."""
    weights = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: tensor for name, tensor in weights.items() if not name.startswith(_PREFIX)}
    checkpoint["teacher"] = asdict(reference)


def restore_teacher(checkpoint: dict[str, Any], teacher: Denoiser) -> None:
    """Completes the weights of a checkpoint."""
    checkpoint["state_dict"].update({_PREFIX + name: tensor for name, tensor in teacher.state_dict().items()})


class FirstTeacher:
    """The final latents of the first teacher for the batches of a validation: each sampled once.

    A batch is known by its noise and conditioning, so that a module that is used again with other data never compares
    with the latents of the data before.

    Args:
        load: makes the teacher, which is held for the length of a validation only.
    """

    def __init__(self, load: Callable[[], Denoiser]) -> None:
        self._load = load
        self._teacher: Denoiser | None = None
        self._latents: dict[str, Tensor] = {}

    def final(self, noise: Tensor, conditioning: Conditioning, sample: Callable[[Denoiser], Tensor]) -> Tensor:
        """Final latents (batch, ...) from ``noise`` (batch, ...), on the CPU; ``sample`` is asked the first time."""
        batch = conditioning.digest(noise)
        if batch not in self._latents:
            if self._teacher is None:
                self._teacher = self._load()
            self._latents[batch] = sample(self._teacher).cpu()
        return self._latents[batch]

    def release(self) -> None:
        """Lets go of the network."""
        self._teacher = None
