"""The conditioning of a batch of clips: the tensors that a text encoder makes of captions and a denoiser reads."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bsa_lightning.common.cache import tensors_sha256


@dataclass(frozen=True)
class Conditioning:
    """The conditioning of a batch of clips; only the denoiser and the conditioner of a model know what it means.

    It is the only form that a caption has between the list that contains it and the network::

        list of captions
            -> Conditioner            a batch; tokens exist only within the conditioner
            -> split                  clips without padding
            -> write_shard, files     the tensors of all clips of a shard, end to end
            -> LatentReader           clips without padding
            -> cat, in LatentBatch    a batch, padded to its longest caption
            -> where, padded          caption dropout; lengths for a compiled network
            -> Denoiser

    Sampling passes the batch of the conditioner to the denoiser directly.

    Args:
        tensors: the tensors by name, each with the batch as its first dimension. A tensor that has an entry in
            ``masks`` is a sequence, (batch, length, ...), which may be cut and padded. The others have one shape for
            all clips, (batch, ...).
        masks: the mask of each sequence by name, (batch, length), bool, True where the sequence is valid. Positions
            that are not valid have no influence on the network.
    """

    tensors: Mapping[str, Tensor]
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def unpadded(tensors: Mapping[str, Tensor], *, sequences: Sequence[str]) -> Conditioning:
        """The conditioning of ``tensors`` whose sequences, named in ``sequences``, are valid at every position."""
        masks = {
            name: torch.ones(tensor.shape[:2], dtype=torch.bool, device=tensor.device)
            for name, tensor in tensors.items()
            if name in sequences
        }
        return Conditioning(tensors, masks)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """The clips of all ``parts`` as one batch, in order; sequences are padded to the longest with zeros."""
        tensors = {
            name: (_cat_padded if name in parts[0].masks else torch.cat)([part.tensors[name] for part in parts])
            for name in parts[0].tensors
        }
        masks = {name: _cat_padded([part.masks[name] for part in parts]) for name in parts[0].masks}
        return Conditioning(tensors, masks)

    def split(self) -> list[Conditioning]:
        """One conditioning per clip, its sequences without the positions that are not valid."""
        return [self[i : i + 1]._trimmed() for i in range(len(self))]

    def __len__(self) -> int:
        """The number of clips."""
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
        """The same on ``device``, with its floating-point tensors in ``dtype``."""
        return Conditioning(
            {
                name: tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=non_blocking)
                for name, tensor in self.tensors.items()
            },
            {name: mask.to(device, non_blocking=non_blocking) for name, mask in self.masks.items()},
        )

    def pin_memory(self) -> Conditioning:
        """The same in page-locked memory."""
        return Conditioning(
            {name: tensor.pin_memory() for name, tensor in self.tensors.items()},
            {name: mask.pin_memory() for name, mask in self.masks.items()},
        )

    def repeat(self, num: int) -> Conditioning:
        """Each clip ``num`` times in a row."""
        at = torch.arange(len(self)).repeat_interleave(num)
        return self[at.to(next(iter(self.tensors.values())).device, non_blocking=True)]

    def padded(self, multiple: int) -> Conditioning:
        """The same with the length of each sequence rounded up to a multiple of ``multiple``.

        A compiled network is compiled once for each shape, and so there are fewer shapes.
        """

        def pad(sequence: Tensor) -> Tensor:
            return _padded(sequence, sequence.shape[1] + -sequence.shape[1] % multiple)

        tensors = {name: pad(tensor) if name in self.masks else tensor for name, tensor in self.tensors.items()}
        return Conditioning(tensors, {name: pad(mask) for name, mask in self.masks.items()})

    def where(self, keep: Tensor, null: Conditioning) -> Conditioning:
        """This conditioning where ``keep`` is True and ``null`` elsewhere: caption dropout.

        Args:
            keep: whether each clip keeps its own conditioning, (batch,), bool, on the CPU.
            null: the conditioning of the empty caption for each clip, see ``Denoiser.null_beside``.
        """
        device = next(iter(self.tensors.values())).device
        own = torch.arange(len(self))
        at = torch.where(keep, own, own + len(self))
        return Conditioning.cat([self, null])[at.to(device, non_blocking=True)]

    def digest(self, *others: Tensor) -> str:
        """The SHA-256 digest of all tensors and masks, and of ``others``: it tells two batches apart."""
        masks = {f"{name}.mask": mask for name, mask in self.masks.items()}
        return tensors_sha256({**self.tensors, **masks, **{str(i): other for i, other in enumerate(others)}})

    def _trimmed(self) -> Conditioning:
        """The only clip of this conditioning without the positions that are not valid."""
        valid = {name: mask[0] for name, mask in self.masks.items()}
        tensors = {name: tensor[:, valid[name]] if name in valid else tensor for name, tensor in self.tensors.items()}
        return Conditioning.unpadded(tensors, sequences=list(valid))


def _cat_padded(parts: Sequence[Tensor]) -> Tensor:
    """``torch.cat`` of sequences (batch, length, ...), each padded to the longest with zeros, without copying twice."""
    longest = max(part.shape[1] for part in parts)
    dtype = functools.reduce(torch.promote_types, [part.dtype for part in parts])
    found = parts[0].new_zeros(sum(map(len, parts)), longest, *parts[0].shape[2:], dtype=dtype)
    for part, place in zip(parts, found.split([len(part) for part in parts]), strict=True):
        place[:, : part.shape[1]] = part
    return found


def _padded(sequence: Tensor, length: int) -> Tensor:
    """``sequence`` (batch, length before, ...) with zeros at its end up to ``length``; itself if that is its length."""
    if sequence.shape[1] == length:
        return sequence
    return nn.functional.pad(sequence, (0, 0) * (sequence.ndim - 2) + (0, length - sequence.shape[1]))
