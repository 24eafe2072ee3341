"""The three seams where foreign models meet ours: Denoiser, Conditioner, Codec."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bsa_lightning.common.cache import tensors_sha256
from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.diffusion.schedule import Schedule

_COMPILED_LENGTH = 64
"""Tokens that few captions exceed."""
_MOST_GRAPHS = 32
"""Sizes of batches, with and without gradients, of both networks; torch would give up at 8."""


@dataclass(frozen=True)
class Conditioning:
    """What a denoiser is told about each clip: an opaque batch of tensors, with masks.

    ``tensors[name]`` is batch-first. A tensor with an entry in ``masks`` is a sequence
    (batch, length, ...) whose mask (batch, length) is True where it is valid; what is masked has
    no influence, so sequences are cut and padded freely. Tensors without a mask have one shape.
    """

    tensors: Mapping[str, Tensor]
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: slice | Tensor) -> Conditioning:
        """The clips that ``index`` (a slice or an index tensor) selects."""
        return Conditioning(
            {name: tensor[index] for name, tensor in self.tensors.items()},
            {name: mask[index] for name, mask in self.masks.items()},
        )

    def to(
        self, device: torch.device | str | None = None, *, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> Conditioning:
        """Moves all tensors; ``dtype`` applies to the floating-point ones only."""
        return Conditioning(
            {
                name: tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=non_blocking)
                for name, tensor in self.tensors.items()
            },
            {name: mask.to(device, non_blocking=non_blocking) for name, mask in self.masks.items()},
        )

    def pin_memory(self) -> Conditioning:
        return Conditioning(
            {name: tensor.pin_memory() for name, tensor in self.tensors.items()},
            {name: mask.pin_memory() for name, mask in self.masks.items()},
        )

    def repeat(self, num: int) -> Conditioning:
        """Every clip ``num`` times in a row."""
        return self[torch.arange(len(self)).repeat_interleave(num)]

    def rows(self) -> list[dict[str, Tensor]]:
        """One dictionary a clip, sequences cut to their valid length: how a clip is stored."""
        lengths = {name: _valid_lengths(mask) for name, mask in self.masks.items()}
        return [
            {
                name: tensor[i, : lengths[name][i]] if name in lengths else tensor[i]
                for name, tensor in self.tensors.items()
            }
            for i in range(len(self))
        ]

    def padded(self, multiple: int) -> Conditioning:
        """The same, with every sequence padded to a multiple of so many: few shapes, for what is compiled."""

        def pad(sequence: Tensor) -> Tensor:
            return _padded(sequence, sequence.shape[1] + -sequence.shape[1] % multiple)

        tensors = {name: pad(tensor) if name in self.masks else tensor for name, tensor in self.tensors.items()}
        return Conditioning(tensors, {name: pad(mask) for name, mask in self.masks.items()})

    @staticmethod
    def stack(rows: Sequence[Mapping[str, Tensor]], *, sequences: Sequence[str]) -> Conditioning:
        """The inverse of :meth:`rows`: the tensors named in ``sequences`` are padded to the longest and masked."""
        tensors, masks = {}, {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            if name not in sequences:
                tensors[name] = torch.stack(values)
                continue
            tensors[name] = nn.utils.rnn.pad_sequence(values, batch_first=True)
            lengths = torch.tensor([len(value) for value in values])
            masks[name] = torch.arange(tensors[name].shape[1])[None] < lengths[:, None]
        return Conditioning(tensors, masks)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """One batch after the other; sequences are padded to the longest."""
        tensors = {
            name: (_cat_padded if name in parts[0].masks else torch.cat)([part.tensors[name] for part in parts])
            for name in parts[0].tensors
        }
        masks = {name: _cat_padded([part.masks[name] for part in parts]) for name in parts[0].masks}
        return Conditioning(tensors, masks)

    def digest(self, *others: Tensor) -> str:
        """The SHA-256 of all tensors and masks, and of ``others``: two batches that differ have two digests."""
        masks = {f"{name}.mask": mask for name, mask in self.masks.items()}
        return tensors_sha256({**self.tensors, **masks, **{str(i): other for i, other in enumerate(others)}})

    def where(self, keep: Tensor, null: Conditioning) -> Conditioning:
        """This conditioning where ``keep`` (batch,) is True, ``null`` (one clip) elsewhere: caption dropout."""
        both = Conditioning.cat([self, null])
        own = torch.arange(len(self), device=keep.device)
        return both[torch.where(keep, own, len(self)).to(next(iter(both.tensors.values())).device)]


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
    sequences: tuple[str, ...]

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


def _valid_lengths(mask: Tensor) -> list[int]:
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    lengths: list[int] = (positions * mask).amax(dim=1).tolist()
    return lengths


def _cat_padded(parts: Sequence[Tensor]) -> Tensor:
    longest = max(part.shape[1] for part in parts)
    return torch.cat([_padded(part, longest) for part in parts])


def _padded(sequence: Tensor, length: int) -> Tensor:
    """(batch, so many, ...), zeros at the end; the very same where it is as long already."""
    if sequence.shape[1] == length:
        return sequence
    return nn.functional.pad(sequence, (0, 0) * (sequence.ndim - 2) + (0, length - sequence.shape[1]))
