"""Fetching in the background what a stream is about to read."""

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


class Ahead:
    """A thread that has the shards of a reader fetched one after the other, in the order in which they are needed.

    What it cannot fetch it leaves: whoever reads the shard meets the same trouble, and says so.

    Args:
        reader: of the store.
    """

    def __init__(self, reader: LatentReader) -> None:
        self.reader = reader
        self._coming: Iterator[int] = iter(())
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, shards: Iterable[int]) -> None:
        """Fetches these from now on, and nothing that was asked for before."""
        self._coming = iter(shards)
        self.resume()

    def pause(self) -> None:
        """Stops, in the middle of a shard if need be."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def resume(self) -> None:
        """Goes on after a pause."""
        self.pause()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="shards ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for shard in self._coming:
            try:
                self.reader.fetch_ahead(shard, self._stop.is_set)
            except UserError:
                return
            if self._stop.is_set():
                self._coming = chain([shard], self._coming)  # it may not be there yet
                return


class Announced(Sampler[list[tuple[int, int]]]):
    """Batches at whose first one the shards to come are fetched ahead.

    The thread rests while a loader starts its workers: a process forked from the middle of a request would inherit
    its locks.

    Args:
        batches: to hand out.
        ahead: the thread.
        coming: tells at the start of a pass which shards it and what follows will read; none lets the thread go on
            with what it has.
    """

    def __init__(self, batches: Batches, ahead: Ahead, coming: Callable[[], Iterable[int]] | None = None) -> None:
        self.batches = batches
        self.ahead = ahead
        self.coming = coming

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        self.ahead.pause()
        return self._walk()

    def _walk(self) -> Iterator[list[tuple[int, int]]]:
        if self.coming is None:
            self.ahead.resume()
        else:
            self.ahead.start(self.coming())
        yield from self.batches


def coming_shards(sizes: Sequence[int], order: Order, position: int) -> Iterator[int]:
    """Every shard (``sizes``: clips of each), in the order in which the stream needs them from ``position`` on."""
    ends = torch.tensor(sizes).cumsum(0)
    epoch, place = divmod(position, sum(sizes))
    items = torch.cat([order(epoch)[place:], order(epoch + 1)])
    yield from dict.fromkeys(torch.bucketize(items, ends, right=True).tolist())
