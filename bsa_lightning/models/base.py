"""The three seams where foreign models meet ours: Denoiser, Conditioner, Codec."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.diffusion.schedule import Schedule
from bsa_lightning.models.conditioning import Conditioning

_COMPILED_LENGTH = 64
"""Tokens that few captions exceed."""
_MOST_GRAPHS = 32
"""Sizes of batches, with and without gradients, of both networks; torch would give up at 8."""


class Posterior(NamedTuple):
    """A codec's distribution over the scaled latent of a clip: N(mean, std^2), each (batch, *latent_shape)."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + self.std * noise


class Denoiser(nn.Module, ABC):
    """A network, its prediction type and its time encoding, behind one call. A student is a Denoiser only.

    ``takes_guidance`` says whether the network has an input for the guidance scale (Meng et al. 2023), and
    ``is_compiled`` whether :meth:`compile_network` was called.
    """

    schedule: Schedule
    takes_guidance: bool = False
    is_compiled: bool = False
    length_multiple: int = 1
    """Sequences of conditioning are padded to a multiple of it."""

    @abstractmethod
    def forward(
        self, z_t: Tensor, t: Tensor, conditioning: Conditioning, guidance_scale: Tensor | None = None
    ) -> Prediction:
        """Predicts (x, eps) in float32 from ``z_t`` (batch, ...) at times ``t`` (batch,), t in (0, 1].

        ``guidance_scale`` (batch,) is for networks that take it; told none, they are the network without that input.
        """

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """What is evaluated, with z_t as its first argument: where evaluations are counted."""

    @abstractmethod
    def example_inputs(self, batch_size: int) -> tuple[Tensor, Conditioning]:
        """Zeros in the shapes of a batch, ``z_t`` and conditioning, for planning and measuring."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes network and scheduler into ``folder``, in diffusers' layout."""

    def blocks(self) -> Sequence[nn.Module]:
        """The parts, none inside another, that hold most weights: each is sharded for itself."""
        return ()

    def compile_network(self, *, backend: str = "inductor") -> None:
        """Compiles the network in place, so that its weights keep their names and may be written in place.

        Each shape of a batch is compiled for itself: torch 2.11 makes wrong strides of a mask of any length.
        """
        self.is_compiled = True
        self.length_multiple = _COMPILED_LENGTH
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
        self.network.compile(backend=backend, dynamic=False)

    def add_guidance_input(self) -> None:
        """Gives the network an input for the guidance scale that changes nothing yet.

        Raises:
            UserError: if this kind of network cannot have one.
        """
        raise UserError(
            f"guidance is Embedded, but {type(self).__name__}'s network has no input for a scale; use Baked or Outside"
        )

    def enable_gradient_checkpointing(self) -> None:
        """Computes activations anew in the backward pass instead of keeping them."""
        raise UserError(f"gradient_checkpointing is true, but {type(self).__name__} does not know how; leave it out")


class Conditioner(nn.Module, ABC):
    """Captions to conditioning, with the encoder's own tokenizer."""

    fingerprint: str

    @abstractmethod
    def forward(self, captions: Sequence[str]) -> Conditioning:
        """Encodes captions, padded to the longest of them."""

    @abstractmethod
    def null(self) -> Conditioning:
        """The conditioning of no caption, one clip."""


class Codec(nn.Module, ABC):
    """Waveforms to scaled latents and back: (batch, samples), or (batch, channels, samples) where there are several.

    ``num_channels`` is how many a clip has; ``num_samples`` is how long each of them is.
    """

    fingerprint: str
    sample_rate: int
    num_channels: int = 1
    num_samples: int
    latent_shape: tuple[int, ...]

    @abstractmethod
    def encode(self, waveform: Tensor) -> Posterior:
        """Posterior over the scaled latent of ``waveform``, ``num_samples`` long at ``sample_rate``."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """Waveforms in [-1, 1], ``num_samples`` long, of scaled latents ``x``."""


@contextmanager
def shapes_only(dtype: torch.dtype) -> Iterator[None]:
    """Networks made in here have parameters of ``dtype`` without memory: torch's fake tensors."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _fake_mode():
            yield
    finally:
        torch.set_default_dtype(before)


@functools.cache
def _fake_mode() -> AbstractContextManager[object]:
    """One for all networks of a process: torch does not mix the tensors of two."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)
