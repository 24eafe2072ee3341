"""The teachers of a run: that of a round, which checkpoints refer to, and the first, which validations compare with."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
    """A reference to the teacher of a round, by the digest of its folder, since run and first teacher may be moved.

    Args:
        first_sha256: the SHA-256 of the first teacher's folder.
        student: the folder, relative to the run, of the student that has become the teacher; ``None`` in the first
            round, whose teacher is the first one.
        sha256: the SHA-256 of the teacher's folder.
    """

    first_sha256: str
    student: str | None
    sha256: str

    def load(self, *, first: str, run_folder: Path, dtype: torch.dtype) -> Denoiser:
        """Returns the teacher of the round.

        Args:
            first: the model folder of the first teacher, or "tiny".
            run_folder: the folder of the run.
            dtype: the type of the teacher's weights.

        Raises:
            UserError: if a folder is missing, or holds other weights than when the checkpoint was written.
        """
        if folder_sha256(first) != self.first_sha256:
            raise UserError(f'teacher is "{first}", but the run began with another one; name the folder that holds it')
        where = resolve_folder(first) if self.student is None else run_folder / self.student
        if not where.is_dir():
            raise UserError(f"{where}, the teacher of the checkpoint's round, is missing; bring it back")
        if folder_sha256(where) != self.sha256:
            raise UserError(f"{where} holds another teacher than the checkpoint was trained with; bring that one back")
        return load_denoiser(where, dtype=dtype)


def drop_teacher(checkpoint: dict[str, Any], reference: TeacherReference, shared: Collection[str] = ()) -> None:
    """Replaces the weights of the teacher in a checkpoint by a reference to its folder, in place.

    Args:
        checkpoint: the checkpoint.
        reference: the reference.
        shared: the names in the state of parameters of the teacher that other networks share.
    """
    weights = checkpoint["state_dict"]
    checkpoint["state_dict"] = {
        name: tensor for name, tensor in weights.items() if not name.startswith(_PREFIX) and name not in shared
    }
    checkpoint["teacher"] = asdict(reference)


def restore_teacher(checkpoint: dict[str, Any], teacher: Denoiser) -> None:
    """Puts the weights of the teacher back into a checkpoint, in place."""
    checkpoint["state_dict"].update({_PREFIX + name: tensor for name, tensor in teacher.state_dict().items()})


class FirstTeacher:
    """The final latents of the first teacher for the batches of a validation, each of which is sampled once.

    Batches are identified by their noise and conditioning, so that a module that is used again with other data does not
    compare with the latents of the earlier data.

    Args:
        load: loads the teacher, which is kept in memory during a validation only.
    """

    def __init__(self, load: Callable[[], Denoiser]) -> None:
        self._load = load
        self._teacher: Denoiser | None = None
        self._latents: dict[str, Tensor] = {}

    def final(self, noise: Tensor, conditioning: Conditioning, sample: Callable[[Denoiser], Tensor]) -> Tensor:
        """Returns the final latents (batch, ...) of a batch, on the CPU.

        Args:
            noise: the noise (batch, ...) that sampling starts from.
            conditioning: the captions of the batch.
            sample: samples the batch with a denoiser; called when the batch comes for the first time.
        """
        batch = conditioning.digest(noise)
        if batch not in self._latents:
            if self._teacher is None:
                self._teacher = self._load()
            self._latents[batch] = sample(self._teacher).cpu()
        return self._latents[batch]

    def release(self) -> None:
        """Frees the memory of the teacher."""
        self._teacher = None
