"""The order of the data as a pure function of (seed, counter): nothing to save but one integer, nothing to replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler


def epoch_order(num_items: int, *, seed: int, epoch: int) -> torch.Tensor:
    """The permutation of ``num_items`` in an epoch, int64."""
    return torch.randperm(num_items, generator=seeded(seed, epoch))


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

    Every item comes once an epoch, over all ranks together; a tail that fills no batch on every rank is dropped.

    Args:
        num_items: in the data set.
        batch_size: of one rank.
        seed: of the order.
        position: how many items of the whole stream (all ranks) are used up, asked at the start of every pass.
            A trainer knows it; counting passes would not do, since Lightning leaves them before their end.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        num_items: int,
        *,
        batch_size: int,
        seed: int,
        position: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_items = num_items
        self.batch_size = batch_size
        self.seed = seed
        self.position = position
        self.rank = rank
        self.world_size = world_size

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches of one rank in an epoch."""
        return self.num_items // (self.batch_size * self.world_size)

    def __len__(self) -> int:
        return self.batches_per_epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """What is left of the epoch that the stream has got to."""
        step = self.batch_size * self.world_size
        epoch, done = divmod(self.position() // step, self.batches_per_epoch)
        order = epoch_order(self.num_items, seed=self.seed, epoch=epoch)
        for batch in range(done, self.batches_per_epoch):
            first = batch * step + self.rank * self.batch_size
            yield [(i, epoch) for i in order[first : first + self.batch_size].tolist()]


_MASK = (1 << 64) - 1
