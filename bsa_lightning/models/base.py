"""The three interfaces of a text-to-audio model: Denoiser (the network), Conditioner (the text side), Codec (sound)."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.diffusion.schedule import Schedule
from bsa_lightning.models.conditioning import Conditioning

_COMPILED_LENGTH = 64
"""The length_multiple of a compiled network, in tokens; few captions are longer."""
_MOST_GRAPHS = 32
"""The most graphs of one network: batch sizes, with and without gradients, of student and teacher; torch stops at 8."""


class Posterior(NamedTuple):
    """The distribution of a codec over the scaled latents of clips: N(mean, std^2), each (batch, *latent_shape)."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """The latents that standard normal ``noise`` of the same shape selects: mean + std * noise."""
        return self.mean + self.std * noise


class Denoiser(nn.Module, ABC):
    """A network with its noise schedule, its prediction type and its encoding of time. A student is only a denoiser."""

    schedule: Schedule
    """The noise schedule that the network was trained on."""
    takes_guidance: bool = False
    """Whether the network has an input for the guidance scale (Meng et al. 2023)."""
    is_compiled: bool = False
    """Whether :meth:`compile_network` was called."""
    length_multiple: int = 1
    """The length of each sequence of the conditioning is padded to a multiple of this."""

    @abstractmethod
    def forward(
        self, z_t: Tensor, t: Tensor, conditioning: Conditioning, guidance_scale: Tensor | None = None
    ) -> Prediction:
        """Predicts (x, eps), each of the shape of ``z_t``, in float32.

        Args:
            z_t: the noisy latents, (batch, *latent_shape).
            t: the time of each clip, (batch,), in (0, 1], on the CPU.
            conditioning: the conditioning of the batch.
            guidance_scale: the guidance scale of each clip, (batch,), on the device of ``z_t``, for networks with
                ``takes_guidance``; ``None`` evaluates the network as if it had no such input.
        """

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The module that one evaluation calls once, with z_t as its first argument; evaluations are counted here."""

    @abstractmethod
    def example_inputs(self, batch_size: int) -> tuple[Tensor, Conditioning]:
        """The latents ``z_t`` and the conditioning of a batch, all zeros, for measuring cost and memory."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the network and its scheduler to subfolders of ``folder``, in the layout of diffusers."""

    def null_beside(self, null: Conditioning, conditioning: Conditioning) -> Conditioning:
        """The conditioning of the empty caption for each clip of a batch, which may depend on the caption it replaces.

        Args:
            null: the conditioning of the empty caption, one clip.
            conditioning: the conditioning of the batch.

        Returns:
            As many clips as ``conditioning`` has; here ``null`` for each.
        """
        return null.repeat(len(conditioning))

    def blocks(self) -> Sequence[nn.Module]:
        """Disjoint modules that hold most of the weights; FSDP shards each of them as a unit."""
        return ()

    def compile_network(self, *, backend: str = "inductor") -> None:
        """Compiles the network in place with torch.compile; weights keep their names and can be changed in place.

        Each shape of a batch is compiled separately, since torch 2.11 computes wrong strides for a mask of dynamic
        length.

        Args:
            backend: the backend of torch.compile.
        """
        self.is_compiled = True
        self.length_multiple = _COMPILED_LENGTH
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
        self.network.compile(backend=backend, dynamic=False)

    def add_guidance_input(self) -> None:
        """Gives the network an input for the guidance scale, whose new weights are zero: predictions do not change.

        Raises:
            UserError: if this kind of network cannot have such an input.
        """
        raise UserError(
            f"guidance is Embedded, but {type(self).__name__}'s network has no input for a scale; use Baked or Outside"
        )

    def enable_gradient_checkpointing(self) -> None:
        """Recomputes activations in the backward pass instead of storing them.

        Raises:
            UserError: if this kind of network cannot do so.
        """
        raise UserError(f"gradient_checkpointing is true, but {type(self).__name__} does not support it; leave it out")


class Conditioner(nn.Module, ABC):
    """The text side of a model: a text encoder with its tokenizer, from captions to conditioning."""

    fingerprint: str
    """A digest of everything that the conditioning depends on."""

    @abstractmethod
    def forward(self, captions: Sequence[str]) -> Conditioning:
        """The conditioning of ``captions``, one clip per caption, with sequences padded to the longest."""

    @abstractmethod
    def null(self) -> Conditioning:
        """The conditioning of the empty caption, one clip: the unconditional branch of classifier-free guidance."""


class Codec(nn.Module, ABC):
    """The sound side of a model: from waveforms to scaled latents and back.

    Waveforms are (batch, num_samples) if ``num_channels`` is 1, else (batch, num_channels, num_samples).
    """

    fingerprint: str
    """A digest of everything that the latents depend on."""
    sample_rate: int
    """Samples per second, in Hz."""
    num_channels: int = 1
    """The number of channels of a clip."""
    num_samples: int
    """The number of samples of each channel of a clip."""
    latent_shape: tuple[int, ...]
    """The shape of the latent of one clip."""

    @abstractmethod
    def encode(self, waveform: Tensor) -> Posterior:
        """The posterior over the scaled latents of waveforms."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """The waveforms, in [-1, 1], of scaled latents ``x`` (batch, *latent_shape)."""


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters and buffers; the CPU for one that has none."""
    return next((tensor.device for tensor in chain(module.parameters(), module.buffers())), torch.device("cpu"))


@contextmanager
def shapes_only(dtype: torch.dtype) -> Iterator[None]:
    """A context in which new networks have parameters of ``dtype`` with shapes but no memory (torch's fake tensors)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _fake_mode():
            yield
    finally:
        torch.set_default_dtype(before)


@functools.cache
def _fake_mode() -> AbstractContextManager[object]:
    """The one fake-tensor mode of this process; torch cannot combine tensors of two modes."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    class SharedByCopies(FakeTensorMode):
        """A mode that a copy of a network keeps: a copy of the mode's weak references would crash the interpreter."""

        def __deepcopy__(self, memo: object) -> Self:
            return self

    return SharedByCopies(allow_non_fake_inputs=True)
