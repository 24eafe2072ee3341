"""The order of the data as a pure function of (seed, counter): nothing to save but one integer, nothing to replay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

Order = Callable[[int], Tensor]
"""From the number of an epoch to its permutation of all items, int64."""


def epoch_order(num_items: int, *, seed: int, epoch: int) -> Tensor:
    """The permutation of ``num_items`` in an epoch, int64."""
    return torch.randperm(num_items, generator=seeded(seed, epoch))


def windowed_order(sizes: Sequence[int], *, window: int, seed: int, epoch: int) -> Tensor:
    """A permutation that needs few shards at a time, int64: shards in random order, shuffled ``window`` by ``window``.

    Args:
        sizes: how many items each shard holds; the items of a shard follow each other, from 0 on.
        window: shards whose items are mixed with each other.
        seed: of the order.
        epoch: number of the epoch.
    """
    generator = seeded(seed, epoch)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    items = [torch.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    windows = torch.randperm(len(sizes), generator=generator).split(window)
    mixed = [torch.cat([items[shard] for shard in shards.tolist()]) for shards in windows]
    return torch.cat([part[torch.randperm(len(part), generator=generator)] for part in mixed])


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator whose stream is a pure function of ``numbers``: no two tuples share one in practice."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # splitmix64, folded over the numbers
        state = (state ^ (number & _MASK)) & _MASK
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return torch.Generator().manual_seed(state)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (item, epoch) of one rank, from wherever the stream of all epochs has got to.

    The stream is the permutation of epoch 0, then that of epoch 1 and so on, without end, cut into batches of
    ``batch_size`` times ``world_size``. Every batch is full on every rank, so that no rank waits for another, and may
    hold the end of one epoch and the beginning of the next; every item comes exactly once in every epoch.
    One pass has the batches that an epoch fills, the last of them rounded up, and the next goes on where it stopped.

    Args:
        order: of an epoch.
        num_items: in the data set.
        batch_size: of one rank.
        position: how many items of the whole stream (all ranks) are used up, asked at the start of every pass.
            A trainer knows it; counting passes would not do, since Lightning leaves them before their end.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        order: Order,
        num_items: int,
        *,
        batch_size: int,
        position: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.order = order
        self.num_items = num_items
        self.batch_size = batch_size
        self.position = position
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches of a pass; the same whatever the position, as Lightning counts its epochs by it."""
        return math.ceil(self.num_items / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.position() + self.rank * self.batch_size
        epoch, order = -1, torch.empty(0, dtype=torch.int64)
        for _ in range(len(self)):
            batch: list[tuple[int, int]] = []
            while len(batch) < self.batch_size:
                wanted, place = divmod(first + len(batch), self.num_items)
                if wanted != epoch:
                    epoch, order = wanted, self.order(wanted)
                batch += [(i, epoch) for i in order[place : place + self.batch_size - len(batch)].tolist()]
            yield batch
            first += self.batch_size * self.world_size


def validation_batches(num_items: int, *, batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """The batches of one rank that walks its share of all items in order, as many and as large on every rank.

    Where the items do not divide by the ranks, some end with PADDING.
    """
    share = -(-num_items // world_size)
    items = [i if i < num_items else PADDING for i in range(rank, share * world_size, world_size)]
    return [items[i : i + batch_size] for i in range(0, share, batch_size)]


PADDING = -1
"""Stands for no item: fills a batch and counts for nothing."""

_MASK = (1 << 64) - 1
