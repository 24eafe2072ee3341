"""The teacher that a ladder began with, which its students are still compared with rounds later."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bsa_lightning.teachers.base import Conditioning, Denoiser


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
