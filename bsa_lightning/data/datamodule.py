"""The stream of prepared latents that training and validation read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bsa_lightning.data.clips import Clips
from bsa_lightning.data.latents import LatentReader, Row
from bsa_lightning.data.order import EpochSampler, seeded
from bsa_lightning.data.prepare import is_prepared, prepare_folder
from bsa_lightning.errors import UserError
from bsa_lightning.teachers.base import Conditioning, Posterior


@dataclass(frozen=True)
class LatentBatch:
    """A batch of prepared clips: their places in the store, latent posteriors, and one caption each."""

    index: Tensor
    posterior: Posterior
    conditioning: Conditioning
    captions: list[str]

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LatentBatch:
        mean, std = (tensor.to(device, non_blocking=non_blocking) for tensor in self.posterior)
        conditioning = self.conditioning.to(device, non_blocking=non_blocking)
        return LatentBatch(self.index, Posterior(mean, std), conditioning, self.captions)

    def pin_memory(self) -> LatentBatch:
        mean, std = (tensor.pin_memory() for tensor in self.posterior)
        return LatentBatch(self.index, Posterior(mean, std), self.conditioning.pin_memory(), self.captions)


@dataclass(frozen=True)
class Prepared:
    """A store of prepared latents.

    Args:
        folder: of the store.
        clips: where given and the store is not there yet, it is prepared from these first.
        teacher: whose codec and text encoder prepare it.
    """

    folder: str
    clips: Clips | None = None
    teacher: str = "tiny"

    def make(self) -> None:
        """Prepares the store if it is missing and can be; one that is there is read against its digests.

        Raises:
            UserError: if the store is damaged, or holds other clips than these.
        """
        if not is_prepared(Path(self.folder)) and self.clips is not None:
            prepare_folder(self.clips, Path(self.folder), self.teacher)
            return
        reader = LatentReader(Path(self.folder))
        reader.verify()
        if self.clips is not None and reader.index["clips"] != self.clips.fingerprint():
            raise UserError(f"{self.folder} holds other clips than its setting clips names; name another folder")


class AudioCapsLatents(LightningDataModule):
    """Streams prepared latents, each clip once an epoch over all ranks, in an order that resumes exactly.

    The order is a pure function of (seed, epoch); all there is to save is how many clips were used up. A tail that
    fills no batch on every rank is left out of an epoch (another tail each epoch).

    Args:
        train: the store to train on.
        val: the store to validate on.
        batch_size: clips of one batch on one device.
        num_workers: processes that read ahead; 0 reads in the training process.
        seed: of order and caption choice.
        num_val_clips: validate on the first so many clips only.
    """

    def __init__(
        self,
        train: Prepared,
        val: Prepared | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        num_val_clips: int = 128,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}, but a batch needs at least one clip")
        self.train = train
        self.val = val
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.num_val_clips = num_val_clips
        self._resumed_clips = self._resumed_batches = 0

    def prepare_data(self) -> None:
        for store in (self.train, self.val):
            if store is not None:
                store.make()

    def setup(self, stage: str) -> None:
        del stage
        self.train_reader = LatentReader(Path(self.train.folder))
        self.val_reader = LatentReader(Path(self.val.folder)) if self.val is not None else None

    @property
    def null(self) -> Conditioning:
        """The conditioning of no caption, one clip."""
        return self.train_reader.null

    @property
    def fingerprint(self) -> str:
        """Digest of the clips that are trained on."""
        return str(self.train_reader.index["clips"])

    def check_fingerprints(self, *, codec: str, conditioner: str, teacher: str) -> None:
        """Refuses latents that were made with another codec or text encoder than the teacher's.

        Raises:
            UserError: naming the store and what differs.
        """
        for reader in (self.train_reader, self.val_reader):
            for name, theirs in (("codec", codec), ("conditioner", conditioner)):
                if reader is not None and reader.index[name] != theirs:
                    raise UserError(
                        f'{reader.folder} was prepared with another {name} than that of teacher "{teacher}";'
                        " prepare it anew with this teacher, or name the teacher it was made with"
                    )

    def train_dataloader(self) -> DataLoader[LatentBatch]:
        rank, world_size = self._rank_and_world_size()
        sampler = EpochSampler(
            len(self.train_reader),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            position=self._position,
        )
        if sampler.batches_per_epoch == 0:
            raise UserError(
                f"{self.train.folder} holds {len(self.train_reader)} clips, fewer than one batch of {self.batch_size}"
                f" on each of {world_size} devices; lower data.batch_size"
            )
        return self._loader(self.train_reader, sampler)

    def val_dataloader(self) -> DataLoader[LatentBatch] | list[Any]:
        if self.val_reader is None:
            return []
        rank, world_size = self._rank_and_world_size()
        # As many clips on each rank: one that walked another batch would wait for the others for ever.
        share = min(self.num_val_clips, len(self.val_reader)) // world_size
        if share == 0:
            raise UserError(f"there are fewer clips to validate on than the {world_size} devices; validate on more")
        items = [(i, 0) for i in range(share * world_size)][rank::world_size]
        batches = [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]
        return self._loader(self.val_reader, batches)

    def test_dataloader(self) -> DataLoader[int]:
        """One empty batch: scoring brings its own clips, but Lightning tests nothing without a batch."""
        return DataLoader([0])  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, int]:
        """How many clips of the endless stream are used up, over all ranks, and in how many batches."""
        return {"clips": self._position(), "batches": self._batches()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._resumed_clips, self._resumed_batches = state_dict["clips"], state_dict["batches"]

    def _position(self) -> int:
        """Counted in clips, so that a resume may have another number of devices or another batch size."""
        _, world_size = self._rank_and_world_size()
        return self._resumed_clips + (self._batches() - self._resumed_batches) * self.batch_size * world_size

    def _batches(self) -> int:
        """Batches that the trainer has finished since the very start."""
        if self.trainer is None:
            return self._resumed_batches
        batches: int = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return batches

    def _loader(
        self, reader: LatentReader, batches: Sampler[list[tuple[int, int]]] | list[list[tuple[int, int]]]
    ) -> DataLoader[LatentBatch]:
        return DataLoader(
            _Items(reader, self.seed),  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=_Collate(reader.sequences),
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            # Without one, each pass would draw its base seed from the global generator and shift all later noise.
            generator=seeded(self.seed),
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


class _Items(Dataset[tuple[int, Row, int]]):
    """Items by (place, epoch): the row, and which of its captions this epoch reads."""

    def __init__(self, reader: LatentReader, seed: int) -> None:
        self.reader = reader
        self.seed = seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[int, Row, int]:
        i, epoch = item
        row = self.reader[i]
        choice = torch.randint(len(row.captions), (), generator=seeded(self.seed, epoch, i))
        return i, row, int(choice)


class _Collate:
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
