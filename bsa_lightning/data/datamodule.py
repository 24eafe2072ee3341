"""The data module that streams prepared latents for training and validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number, check_seed
from bsa_lightning.data.batches import Items, LatentBatch
from bsa_lightning.data.clips import Clips
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.order import EpochSampler, Order, epoch_order, seeded, validation_batches, windowed_order
from bsa_lightning.data.prefetching import Batches, PrefetchedBatches, Prefetcher, upcoming_shards
from bsa_lightning.data.prepare import is_prepared, prepare_folder
from bsa_lightning.data.store import is_url
from bsa_lightning.models.conditioning import Conditioning


@dataclass(frozen=True)
class Prepared:
    """A store of prepared latents.

    Args:
        folder: the folder of the store, or its URL (s3://bucket/folder).
        clips: the clips from which the store is prepared if it does not exist; ``None`` requires it to exist.
        teacher: the model whose codec and text encoder prepare the store: a folder, a hub id, or "tiny".
        cache: the folder in which the files of a URL are kept, preferably on a local disk; it becomes as large as the
            store. ``None`` is ``bsa-lightning/latents`` in the user's cache folder.
    """

    folder: str
    clips: Clips | None = None
    teacher: str = "tiny"
    cache: Path | None = None

    def make(self) -> None:
        """Prepares the store if it is incomplete and ``clips`` are given; otherwise verifies its files.

        Raises:
            UserError: if the store is missing or damaged, or contains other clips than ``clips``.
        """
        if self.clips is not None and not is_url(self.folder) and not is_prepared(Path(self.folder)):
            prepare_folder(self.clips, Path(self.folder), self.teacher)
            return
        reader = self.open()
        reader.verify()
        # A store without the unreadable clips of a list also records the fingerprint of the whole list.
        known = (reader.index["clips"], reader.index.get("listed"))
        if self.clips is not None and self.clips.fingerprint() not in known:
            raise UserError(
                f"{self.folder} contains other clips than the setting clips names; bring it up to date with lightning"
                " prepare, or name another folder"
            )

    def open(self) -> LatentReader:
        """A reader of the store."""
        return LatentReader(self.folder, self.cache)


class AudioCapsLatents(LightningDataModule):
    """Streams prepared latents, with each clip once per epoch over all ranks, in an order that can be resumed exactly.

    The order is a pure function of seed and epoch, so the only state is the number of clips read so far: a resumed run
    continues at the same clip with any number of devices, batch size or number of workers. If an epoch does not fill
    its last batch on all ranks, clips of the next epoch do, so Lightning's epochs are those of the stream rounded up to
    full batches.

    Stores in folders are prepared and verified by one process for all nodes, which requires a shared file system. If
    the nodes do not share one, run ``lightning prepare`` on each first (or copy the folder), or use a URL, whose files
    each node fetches to its own cache.

    Args:
        train: the store to train on.
        val: the store to validate on; ``None`` validates on nothing.
        batch_size: the number of clips in a batch on one device, at least 1.
        num_workers: the number of processes that load batches, from 0 to 1024; 0 loads them in the training process.
        seed: the seed of the order and of the choice among a clip's captions, from 0 to 2**63 - 1.
        num_val_clips: the number of clips to validate on, the first ones of the store, at least 1.
        shuffle_shards: the number of shards whose clips are shuffled together, at least 1; a stream from a URL can
            start when it has fetched that many. ``None`` shuffles all clips together.

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
        self.prepare_data_per_node = is_url(train.folder)  # each node verifies its own cache
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
        self._prefetcher: Prefetcher | None = None

    def prepare_data(self) -> None:
        for store in (self.train, self.val):
            if store is not None:
                store.make()

    def setup(self, stage: str) -> None:
        del stage
        self.train_reader = self.train.open()
        self.val_reader = self.val.open() if self.val is not None else None
        self._prefetcher = Prefetcher(self.train_reader) if is_url(self.train.folder) else None

    def teardown(self, stage: str) -> None:
        del stage
        if self._prefetcher is not None:
            self._prefetcher.pause()

    @property
    def null(self) -> Conditioning:
        """The conditioning of the empty caption, one clip."""
        return self.train_reader.null

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the clips to train on."""
        return str(self.train_reader.index["clips"])

    def refuse_other_clips(self, fingerprint: str) -> None:
        """Refuses clips to train on of another fingerprint, for a run that is continued.

        Raises:
            UserError: if they have another one.
        """
        if fingerprint != self.fingerprint:
            raise UserError(
                f"data.train is {self.train.folder}, which holds other clips than the run was trained on; name the"
                " folder that holds those"
            )

    @property
    def sampled_latents(self) -> dict[str, Any] | None:
        """How a teacher sampled the latents to train on, and how many; ``None`` for those of recorded sound."""
        index = self.train_reader.index
        return {**index["sampling"], "num_latents": index["num_clips"]} if index.get("sampling") else None

    def check_fingerprints(self, *, codec: str, conditioner: str, teacher: str) -> None:
        """Checks that both stores were prepared with the codec and the text encoder of the teacher.

        Args:
            codec: the fingerprint of the teacher's codec.
            conditioner: the fingerprint of the teacher's conditioner.
            teacher: the name of the teacher, for the message.

        Raises:
            UserError: if one was not; the message names the store and what differs.
        """
        for reader in (self.train_reader, self.val_reader):
            for name, theirs in (("codec", codec), ("conditioner", conditioner)):
                if reader is not None and reader.index[name] != theirs:
                    length = ", or for another length of its clips" if name == "codec" else ""
                    raise UserError(
                        f'{reader.name} was prepared with another {name} than that of teacher "{teacher}"{length};'
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
        if isinstance(self.trainer, Trainer):
            _check_validation_interval(self.trainer, len(batches))
        return self._loader(self.train_reader, batches, self._upcoming)

    def val_dataloader(self) -> DataLoader[LatentBatch] | list[Any]:
        if self.val_reader is None:
            return []
        rank, world_size = self._rank_and_world_size()
        num_clips = min(self.num_val_clips, len(self.val_reader))
        batches = validation_batches(num_clips, batch_size=self.batch_size, rank=rank, world_size=world_size)
        items = [[(i, 0) for i in batch] for batch in batches]
        return self._loader(self.val_reader, items)

    def test_dataloader(self) -> DataLoader[int]:
        """A single empty batch: scoring reads its own clips, but Lightning does not run a test without a batch."""
        return DataLoader([0])  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, int]:
        """The number of clips of the stream that were read so far, over all ranks, and the number of their batches."""
        return {"clips": self._position(), "batches": self._batches()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._resumed_clips, self._resumed_batches = state_dict["clips"], state_dict["batches"]

    def _position(self) -> int:
        """The number of clips read so far: with it, a resumed run may have other devices or another batch size."""
        _, world_size = self._rank_and_world_size()
        return self._resumed_clips + (self._batches() - self._resumed_batches) * self.batch_size * world_size

    def _batches(self) -> int:
        """The number of batches that the trainer has finished, over all resumes of the run."""
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

    def _upcoming(self) -> Iterator[int]:
        return upcoming_shards(self.train_reader.sizes, self._order, self._position())

    def _loader(
        self, reader: LatentReader, batches: Batches, upcoming: Callable[[], Iterable[int]] | None = None
    ) -> DataLoader[LatentBatch]:
        sampler = batches if self._prefetcher is None else PrefetchedBatches(batches, self._prefetcher, upcoming)
        return DataLoader(
            Items(reader, self.seed),
            batch_sampler=sampler,
            collate_fn=LatentBatch.cat,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            # Without a generator of its own, each pass would draw from the global one and change all later noise.
            generator=seeded(self.seed),
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _check_validation_interval(trainer: Trainer, num_batches: int) -> None:
    """Refuses validations after more batches than an epoch has, which Lightning would raise a ``ValueError`` for.

    Args:
        trainer: the trainer.
        num_batches: the number of training batches of an epoch.

    Raises:
        UserError: if there would be none.
    """
    limit = trainer.limit_train_batches
    interval = getattr(trainer, "val_check_interval", None)  # Lightning sets it for numbers only
    num_batches = int(num_batches * limit) if isinstance(limit, float) else min(num_batches, limit or num_batches)
    counts_in_epochs = trainer.check_val_every_n_epoch is not None and trainer.limit_val_batches != 0
    if counts_in_epochs and isinstance(interval, int) and interval > num_batches:
        raise UserError(
            f"trainer.val_check_interval is {interval}, but an epoch has {num_batches} batches; set"
            " trainer.check_val_every_n_epoch to null, which counts batches over epochs, or lower the interval"
        )
