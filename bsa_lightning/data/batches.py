"""From the places that a sampler draws to batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from bsa_lightning.data.latents import LatentReader, Row
from bsa_lightning.data.order import PADDING, seeded
from bsa_lightning.models.base import Conditioning, Posterior


@dataclass(frozen=True)
class LatentBatch:
    """A batch of prepared clips: their places in the store, latent posteriors, and one caption each.

    A place of -1 is a clip that only fills the batch, so that all ranks have as many, and counts for nothing.
    """

    index: Tensor
    posterior: Posterior
    conditioning: Conditioning
    captions: list[str]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def counts(self) -> Tensor:
        """Where a clip is one of the data, (batch,) bool, on the device of the latents."""
        return (self.index != PADDING).to(self.posterior.mean.device)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LatentBatch:
        mean, std = (tensor.to(device, non_blocking=non_blocking) for tensor in self.posterior)
        conditioning = self.conditioning.to(device, non_blocking=non_blocking)
        return LatentBatch(self.index, Posterior(mean, std), conditioning, self.captions)

    def pin_memory(self) -> LatentBatch:
        mean, std = (tensor.pin_memory() for tensor in self.posterior)
        return LatentBatch(self.index, Posterior(mean, std), self.conditioning.pin_memory(), self.captions)


class Items(Dataset[tuple[int, Row, int]]):
    """Items by (place, epoch): the row, and which of its captions this epoch reads."""

    def __init__(self, reader: LatentReader, seed: int) -> None:
        self.reader = reader
        self.seed = seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[int, Row, int]:
        i, epoch = item
        row = self.reader[max(i, 0)]  # for PADDING, whichever
        choice = torch.randint(len(row.captions), (), generator=seeded(self.seed, epoch, i))
        return i, row, int(choice)


class Collate:
    """Rows to a batch; sequences are padded to the longest."""

    def __init__(self, sequences: Sequence[str]) -> None:
        self.sequences = sequences

    def __call__(self, items: Sequence[tuple[int, Row, int]]) -> LatentBatch:
        return LatentBatch(
            index=torch.tensor([i for i, _, _ in items]),
            posterior=Posterior(
                torch.stack([row.mean for _, row, _ in items]), torch.stack([row.std for _, row, _ in items])
            ),
            conditioning=Conditioning.stack(
                [row.conditioning[choice] for _, row, choice in items], sequences=self.sequences
            ),
            captions=[row.captions[choice] for _, row, choice in items],
        )
