"""Prefetching of the shards that a stream will read, by a thread in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import torch
from torch.utils.data import Sampler

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.order import EpochSampler, Order

Batches = EpochSampler | list[list[tuple[int, int]]]


class Prefetcher:
    """A thread that fetches the shards of a remote store one after the other, in the order in which they are needed.

    It stops at the first shard that cannot be fetched; the error is raised when that shard is read.

    Args:
        reader: the reader of the store.
    """

    def __init__(self, reader: LatentReader) -> None:
        self.reader = reader
        self._upcoming: Iterator[int] = iter(())
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, shards: Iterable[int]) -> None:
        """Fetches ``shards``, by their numbers, instead of those of an earlier call."""
        self._upcoming = iter(shards)
        self.resume()

    def pause(self) -> None:
        """Stops the thread, within a shard if necessary, and waits for its end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def resume(self) -> None:
        """Continues with the shards that are left."""
        self.pause()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="prefetch shards", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for shard in self._upcoming:
            try:
                self.reader.fetch_ahead(shard, self._stop.is_set)
            except UserError:
                return
            if self._stop.is_set():
                self._upcoming = chain([shard], self._upcoming)  # it may be incomplete
                return


class PrefetchedBatches(Sampler[list[tuple[int, int]]]):
    """A sampler of batches that starts the prefetching of their shards with the first batch.

    The thread is paused while a loader starts its workers, since a process that is forked during a request would
    inherit its locks.

    Args:
        batches: the batches of items.
        prefetcher: the thread.
        upcoming: a function that is called at the start of each pass and returns the numbers of the shards that the
            pass and later ones will read, in order; ``None`` lets the thread continue with the shards it has left.
    """

    def __init__(
        self, batches: Batches, prefetcher: Prefetcher, upcoming: Callable[[], Iterable[int]] | None = None
    ) -> None:
        self.batches = batches
        self.prefetcher = prefetcher
        self.upcoming = upcoming

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        self.prefetcher.pause()
        return self._walk()

    def _walk(self) -> Iterator[list[tuple[int, int]]]:
        if self.upcoming is None:
            self.prefetcher.resume()
        else:
            self.prefetcher.start(self.upcoming())
        yield from self.batches


def upcoming_shards(sizes: Sequence[int], order: Order, position: int) -> Iterator[int]:
    """The numbers of the shards in the order in which a stream needs them, each once.

    Args:
        sizes: the number of clips of each shard.
        order: the function from the number of an epoch to its permutation of all clips.
        position: the number of clips of the stream that were read before.
    """
    ends = torch.tensor(sizes).cumsum(0)
    epoch, place = divmod(position, sum(sizes))
    items = torch.cat([order(epoch)[place:], order(epoch + 1)])
    yield from dict.fromkeys(torch.bucketize(items, ends, right=True).tolist())
