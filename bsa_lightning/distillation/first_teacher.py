"""What a ladder began with, which its students are still compared with rounds later."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bsa_lightning.teachers.base import Denoiser


class FirstTeacher:
    """The final latents of the first teacher for the batches of a validation: sampled once, since they never change.

    Args:
        load: makes the teacher, which is held for the length of a validation only.
    """

    def __init__(self, load: Callable[[], Denoiser]) -> None:
        self._load = load
        self._teacher: Denoiser | None = None
        self._latents: dict[int, Tensor] = {}

    def final(self, batch_idx: int, sample: Callable[[Denoiser], Tensor]) -> Tensor:
        """Final latents for a batch, on the CPU; ``sample`` is asked for them the first time."""
        if batch_idx not in self._latents:
            if self._teacher is None:
                self._teacher = self._load()
            self._latents[batch_idx] = sample(self._teacher).cpu()
        return self._latents[batch_idx]

    def release(self) -> None:
        """Lets go of the network."""
        self._teacher = None
