"""The order of the data as a pure function of seed and epoch, so that one integer is its whole state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

Order = Callable[[int], Tensor]
"""A function from the number of an epoch to its permutation of all items, (num_items,), int64."""


def epoch_order(num_items: int, *, seed: int, epoch: int) -> Tensor:
    """The permutation of all items in an epoch, (num_items,), int64."""
    return torch.randperm(num_items, generator=seeded(seed, epoch))


def windowed_order(sizes: Sequence[int], *, window: int, seed: int, epoch: int) -> Tensor:
    """The permutation of all items in an epoch that needs few shards at a time, (num_items,), int64.

    The shards are in random order, and the items of each ``window`` consecutive shards are shuffled together.

    Args:
        sizes: the number of items of each shard; items are numbered shard by shard, from 0.
        window: the number of shards whose items are shuffled together, at least 1.
        seed: the seed of the order.
        epoch: the number of the epoch, from 0.
    """
    generator = seeded(seed, epoch)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    items = [torch.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    windows = torch.randperm(len(sizes), generator=generator).split(window)
    mixed = [torch.cat([items[shard] for shard in shards.tolist()]) for shards in windows]
    return torch.cat([part[torch.randperm(len(part), generator=generator)] for part in mixed])


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator seeded with a 64-bit hash of ``numbers``, so that different tuples have independent streams."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # splitmix64, folded over the numbers
        state = (state ^ (number & _MASK)) & _MASK
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return torch.Generator().manual_seed(state)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """A sampler of the batches of one rank, as lists of (item, epoch), from the endless stream of all epochs.

    The stream is the permutation of epoch 0, then that of epoch 1, and so on. It is cut into global batches of
    ``batch_size`` times ``world_size`` items, so each batch is full on each rank and may contain the end of one epoch
    and the beginning of the next; each item occurs exactly once in each epoch. One pass has as many batches as an epoch
    needs, rounded up, and begins at the position that the stream has reached.

    Args:
        order: the function from the number of an epoch to its permutation of all items.
        num_items: the number of items of the data set.
        batch_size: the number of items of a batch on one rank.
        position: a function that returns the number of items of the stream, over all ranks, that were used so far; it
            is called at the start of each pass. Counting passes would not be enough, since Lightning may leave a pass
            before its end.
        rank: the rank of this process.
        world_size: the number of processes.
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
        """The number of batches of a pass, with which Lightning counts epochs; it does not depend on the position."""
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
    """The validation batches of one rank: its share of all items, in order, with equally large batches on all ranks.

    If the items cannot be divided equally, the last batch of some ranks ends with PADDING.

    Args:
        num_items: the number of items to validate on.
        batch_size: the number of items of a batch on one rank.
        rank: the rank of this process.
        world_size: the number of processes.
    """
    share = -(-num_items // world_size)
    items = [i if i < num_items else PADDING for i in range(rank, share * world_size, world_size)]
    return [items[i : i + batch_size] for i in range(0, share, batch_size)]


PADDING = -1
"""The place of an item that only fills a batch and must be ignored."""

_MASK = (1 << 64) - 1
