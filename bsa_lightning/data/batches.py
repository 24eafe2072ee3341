"""Batches of prepared clips, from the items that a sampler draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.order import PADDING, seeded
from bsa_lightning.models.base import Posterior
from bsa_lightning.models.conditioning import Conditioning


@dataclass(frozen=True)
class LatentBatch:
    """A batch of prepared clips with one caption each.

    Args:
        index: the place of each clip in its store, (batch,), int64. A clip with place -1 is padding, with which all
            ranks have equally many clips, and must be ignored.
        posterior: the posterior over the scaled latent of each clip, (batch, *latent_shape).
        conditioning: the conditioning of the captions.
        captions: the captions.
    """

    index: Tensor
    posterior: Posterior
    conditioning: Conditioning
    captions: list[str]

    @staticmethod
    def cat(parts: Sequence[LatentBatch]) -> LatentBatch:
        """The clips of all ``parts`` as one batch, in order; the ``collate_fn`` of a loader of :class:`Items`."""
        return LatentBatch(
            index=torch.cat([part.index for part in parts]),
            posterior=Posterior(
                torch.cat([part.posterior.mean for part in parts]), torch.cat([part.posterior.std for part in parts])
            ),
            conditioning=Conditioning.cat([part.conditioning for part in parts]),
            captions=[caption for part in parts for caption in part.captions],
        )

    def __len__(self) -> int:
        """The number of clips, with padding."""
        return len(self.index)

    @property
    def counts(self) -> Tensor:
        """Whether each clip is not padding, (batch,), bool, on the device of the latents."""
        return (self.index != PADDING).to(self.posterior.mean.device)

    def to(self, device: torch.device | str) -> LatentBatch:
        """The same with posterior and conditioning on ``device``; ``index`` stays on the CPU."""
        # To a device, the CPU need not wait for the copy; from one, it would read before the copy is there.
        ahead = torch.device(device).type != "cpu"
        mean, std = (tensor.to(device, non_blocking=ahead) for tensor in self.posterior)
        conditioning = self.conditioning.to(device, non_blocking=ahead)
        return LatentBatch(self.index, Posterior(mean, std), conditioning, self.captions)

    def pin_memory(self) -> LatentBatch:
        """The same with posterior and conditioning in page-locked memory."""
        mean, std = (tensor.pin_memory() for tensor in self.posterior)
        return LatentBatch(self.index, Posterior(mean, std), self.conditioning.pin_memory(), self.captions)


class Items(Dataset[LatentBatch]):
    """A data set whose item (place, epoch) is a batch of one clip, with the caption that is drawn for that epoch.

    Args:
        reader: the store.
        seed: the seed of the choice among a clip's captions, from 0 to 2**63 - 1.
    """

    def __init__(self, reader: LatentReader, seed: int) -> None:
        self.reader = reader
        self.seed = seed

    def __getitem__(self, item: tuple[int, int]) -> LatentBatch:
        i, epoch = item
        clip = self.reader[max(i, 0)]  # any clip serves as PADDING
        choice = int(torch.randint(len(clip.captions), (), generator=seeded(self.seed, epoch, i)))
        posterior = Posterior(clip.mean[None], clip.std[None])
        return LatentBatch(torch.tensor([i]), posterior, clip.conditioning[choice], [clip.captions[choice]])
