"""The stream of prepared latents that training and validation read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number, check_seed
from bsa_lightning.data.ahead import Ahead, Announced, Batches, coming_shards
from bsa_lightning.data.batches import Items, LatentBatch
from bsa_lightning.data.clips import Clips
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.order import EpochSampler, Order, epoch_order, seeded, validation_batches, windowed_order
from bsa_lightning.data.prepare import is_prepared, prepare_folder
from bsa_lightning.data.store import is_url
from bsa_lightning.models.conditioning import Conditioning


@dataclass(frozen=True)
class Prepared:
    """A store of prepared latents.

    Args:
        folder: of the store, or an address that holds one (s3://bucket/folder).
        clips: where given and the store is not there yet, it is prepared from these first.
        teacher: whose codec and text encoder prepare it.
        cache: where files of an address are kept once they are fetched, best on a disk of the machine itself; it
            becomes as large as the store. None is ``bsa-lightning/latents`` in the user's cache folder.
    """

    folder: str
    clips: Clips | None = None
    teacher: str = "tiny"
    cache: Path | None = None

    def make(self) -> None:
        """Prepares what is missing of the store, if it can be; one that is there is read against its digests.

        Raises:
            UserError: if the store is damaged, or holds other clips than these.
        """
        if self.clips is not None and not is_url(self.folder) and not is_prepared(Path(self.folder)):
            prepare_folder(self.clips, Path(self.folder), self.teacher)
            return
        reader = self.open()
        reader.verify()
        # A store that lacks clips that could not be read knows the whole list, too.
        known = (reader.index["clips"], reader.index.get("listed"))
        if self.clips is not None and self.clips.fingerprint() not in known:
            raise UserError(
                f"{self.folder} holds other clips than its setting clips names; bring it up to date with lightning"
                " prepare, or name another folder"
            )

    def open(self) -> LatentReader:
        """Random access to the store."""
        return LatentReader(self.folder, self.cache)


class AudioCapsLatents(LightningDataModule):
    """Streams prepared latents, each clip once an epoch over all ranks, in an order that resumes exactly.

    The order is a pure function of (seed, epoch); all there is to save is how many clips were used up, so that a run
    goes on at the same clip with any number of devices, batch size or workers. Where an epoch does not fill its last
    batch on every rank, the next epoch does, so that Lightning's epochs are those of the stream rounded up to whole
    batches.

    Stores are prepared and verified by one process over all nodes, as on a shared file system. Where each node has a
    disk of its own, run ``lightning prepare`` on each (or copy the folder) first, or name an address, whose files
    each node fetches to its own cache.

    Args:
        train: the store to train on.
        val: the store to validate on.
        batch_size: clips of one batch on one device, at least 1.
        num_workers: processes that read ahead, from 0 to 1024; 0 reads in the training process.
        seed: of order and caption choice, from 0 to 2**63 - 1.
        num_val_clips: validate on the first so many clips only, at least 1.
        shuffle_shards: mix the clips of so many shards at a time, at least 1, so that a stream from an address starts
            when it has the first few. ``None`` mixes all.

    Raises:
        UserError: if a number is out of its range.
    """

    def __init__(
        self,
        train: Prepared,
        val: Prepared | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        num_val_clips: int = 128,
        shuffle_shards: int | None = None,
    ) -> None:
        super().__init__()
        self.prepare_data_per_node = is_url(train.folder)  # each has a cache of its own, which is verified there
        if shuffle_shards is not None:
            check_number("shuffle_shards", shuffle_shards, whole=True, at_least=1, at_most=2**31 - 1)
        check_number("batch_size", batch_size, whole=True, at_least=1, at_most=2**31 - 1)
        check_number("num_workers", num_workers, whole=True, at_least=0, at_most=1024)
        check_number("num_val_clips", num_val_clips, whole=True, at_least=1, at_most=2**31 - 1)
        check_seed("seed", seed)
        self.train = train
        self.val = val
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.num_val_clips = num_val_clips
        self.shuffle_shards = shuffle_shards
        self._resumed_clips = self._resumed_batches = 0
        self._ahead: Ahead | None = None

    def prepare_data(self) -> None:
        for store in (self.train, self.val):
            if store is not None:
                store.make()

    def setup(self, stage: str) -> None:
        del stage
        self.train_reader = self.train.open()
        self.val_reader = self.val.open() if self.val is not None else None
        self._ahead = Ahead(self.train_reader) if is_url(self.train.folder) else None

    def teardown(self, stage: str) -> None:
        del stage
        if self._ahead is not None:
            self._ahead.pause()

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
                        f'{reader.name} was prepared with another {name} than that of teacher "{teacher}";'
                        " prepare it anew with this teacher, or name the teacher it was made with"
                    )

    def train_dataloader(self) -> DataLoader[LatentBatch]:
        rank, world_size = self._rank_and_world_size()
        num_clips = len(self.train_reader)
        if num_clips < self.batch_size * world_size:
            raise UserError(
                f"{self.train.folder} holds {num_clips} clips, fewer than one batch of {self.batch_size}"
                f" on each of {world_size} devices; lower data.batch_size"
            )
        batches = EpochSampler(
            self._order,
            num_clips,
            batch_size=self.batch_size,
            rank=rank,
            world_size=world_size,
            position=self._position,
        )
        return self._loader(self.train_reader, batches, self._coming)

    def val_dataloader(self) -> DataLoader[LatentBatch] | list[Any]:
        if self.val_reader is None:
            return []
        rank, world_size = self._rank_and_world_size()
        num_clips = min(self.num_val_clips, len(self.val_reader))
        batches = validation_batches(num_clips, batch_size=self.batch_size, rank=rank, world_size=world_size)
        items = [[(i, 0) for i in batch] for batch in batches]
        return self._loader(self.val_reader, items)

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

    @property
    def _order(self) -> Order:
        sizes, window = self.train_reader.sizes, self.shuffle_shards
        if window is None:
            return lambda epoch: epoch_order(sum(sizes), seed=self.seed, epoch=epoch)
        return lambda epoch: windowed_order(sizes, window=window, seed=self.seed, epoch=epoch)

    def _coming(self) -> Iterator[int]:
        return coming_shards(self.train_reader.sizes, self._order, self._position())

    def _loader(
        self, reader: LatentReader, batches: Batches, coming: Callable[[], Iterable[int]] | None = None
    ) -> DataLoader[LatentBatch]:
        announced = batches if self._ahead is None else Announced(batches, self._ahead, coming)
        return DataLoader(
            Items(reader, self.seed),
            batch_sampler=announced,
            collate_fn=LatentBatch.cat,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            # Without one, each pass would draw its base seed from the global generator and shift all later noise.
            generator=seeded(self.seed),
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
