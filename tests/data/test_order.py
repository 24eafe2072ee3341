from collections import Counter
from functools import partial
from itertools import islice

import pytest
import torch

from bsa_lightning.data.order import PADDING, EpochSampler, epoch_order, seeded, validation_batches, windowed_order

SIZES = [5, 7, 1, 6, 4]


def ordered(num_items=23, seed=0):
    return lambda epoch: epoch_order(num_items, seed=seed, epoch=epoch)


def windowed(epoch):
    return windowed_order(SIZES, window=2, seed=0, epoch=epoch)


def walk(num_batches, *, position=0, num_items=23, batch_size=2, world_size=1, order=None):
    """The first batches from a position on: for each the items of every rank; a pass ends, the next begins."""
    seen = []
    while len(seen) < num_batches:
        samplers = [
            EpochSampler(
                order or ordered(num_items),
                num_items,
                batch_size=batch_size,
                rank=rank,
                world_size=world_size,
                position=partial(int, position + len(seen) * batch_size * world_size),
            )
            for rank in range(world_size)
        ]
        seen += islice(zip(*samplers, strict=True), num_batches - len(seen))
    return seen


def flat(batches):
    return [item for together in batches for batch in together for item in batch]


@pytest.mark.parametrize(("num_items", "order"), [(1, None), (7, None), (23, None), (24, None), (sum(SIZES), windowed)])
@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (2, 1), (5, 1), (1, 3), (2, 2), (4, 3), (16, 2)])
def test_each_item_once_an_epoch_over_all_ranks(num_items, batch_size, world_size, order):
    step, epochs = batch_size * world_size, 5
    batches = walk(
        -(-epochs * num_items // step),
        num_items=num_items,
        batch_size=batch_size,
        world_size=world_size,
        order=order,
    )
    assert {len(batch) for together in batches for batch in together} == {batch_size}
    times = Counter(flat(batches))
    assert set(times.values()) == {1}  # ranks never share an item of an epoch
    assert all(times[i, epoch] == 1 for i in range(num_items) for epoch in range(epochs))


@pytest.mark.parametrize(("num_items", "batch_size", "world_size"), [(24, 4, 1), (24, 2, 3), (6, 6, 1)])
def test_where_all_batches_fit_an_epoch_is_its_permutation_cut_up(num_items, batch_size, world_size):
    step = batch_size * world_size
    batches = walk(2 * num_items // step, num_items=num_items, batch_size=batch_size, world_size=world_size)
    for number, together in enumerate(batches):
        epoch, first = divmod(number * step, num_items)
        expected = epoch_order(num_items, seed=0, epoch=epoch)[first : first + step].split(batch_size)
        assert [[i for i, _ in batch] for batch in together] == [part.tolist() for part in expected]
        assert {epoch_ for batch in together for _, epoch_ in batch} == {epoch}


@pytest.mark.parametrize("seed", range(20))
def test_the_stream_is_one_whatever_ranks_and_batches_read_it_and_wherever_they_change(seed):
    """Several stretches, each by another number of ranks and another batch size, from where the last one stopped."""
    draw = torch.randint(1, 6, (5, 3), generator=seeded(seed)).tolist()
    seen = []
    for num_batches, batch_size, world_size in draw:
        seen += flat(walk(num_batches, position=len(seen), batch_size=batch_size, world_size=world_size))
    order = ordered()
    whole = [(i, epoch) for epoch in range(-(-len(seen) // 23)) for i in order(epoch).tolist()]
    assert seen == whole[: len(seen)]


@pytest.mark.parametrize("after", [1, 10, 11, 12, 25])
def test_the_stream_goes_on_from_any_position(after):
    """11.5 batches an epoch: in the first, at its end, in the second and the third."""
    assert walk(20, position=2 * after) == walk(20 + after)[after:]


def test_a_pass_is_an_epoch_rounded_up():
    sampler = EpochSampler(ordered(), 23, batch_size=2, position=lambda: 0, world_size=2)
    assert len(sampler) == len(list(sampler)) == 6
    assert len(EpochSampler(ordered(24), 24, batch_size=2, position=lambda: 20, world_size=2)) == 6


def test_each_epoch_has_another_order():
    seen = flat(walk(23, batch_size=2))
    assert [i for i, epoch in seen if epoch == 0] != [i for i, epoch in seen if epoch == 1]


@pytest.mark.parametrize(
    "order", [lambda seed, epoch: epoch_order(23, seed=seed, epoch=epoch),
              lambda seed, epoch: windowed_order(SIZES, window=2, seed=seed, epoch=epoch)]
)  # fmt: skip
def test_order_is_a_permutation_by_seed_and_epoch(order):
    assert sorted(order(1, 2).tolist()) == list(range(23))
    assert torch.equal(order(1, 2), order(1, 2))
    assert not torch.equal(order(1, 2), order(2, 1))


@pytest.mark.parametrize("window", [1, 2, 3, 9])
def test_a_window_mixes_so_many_shards_and_no_others(window):
    shard_of = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    seen = [shard_of[i].item() for i in windowed_order(SIZES, window=window, seed=3, epoch=0)]
    windows = []
    while seen:
        shards = list(dict.fromkeys(shard for past in windows for shard in past))
        coming = [shard for shard in dict.fromkeys(seen) if shard not in shards][:window]
        num_items = sum(SIZES[shard] for shard in coming)
        windows.append(seen[:num_items])
        assert Counter(windows[-1]) == {shard: SIZES[shard] for shard in coming}
        seen = seen[num_items:]
    assert len(windows) == -(-len(SIZES) // window)


@pytest.mark.parametrize("num_items", [1, 5, 6, 8, 17])
@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (4, 1), (2, 2), (3, 4), (1, 3)])
def test_validation_walks_each_item_once_and_as_many_batches_on_every_rank(num_items, batch_size, world_size):
    ranks = [
        validation_batches(num_items, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    items = [i for batches in ranks for batch in batches for i in batch]
    assert sorted(i for i in items if i != PADDING) == list(range(num_items))
    assert items.count(PADDING) == -num_items % world_size
    assert len({tuple(len(batch) for batch in batches) for batches in ranks}) == 1
    if world_size == 1:
        assert [i for batch in ranks[0] for i in batch] == list(range(num_items))


def test_streams_of_neighbouring_numbers_are_unrelated():
    tuples = [(a, b) for a in range(20) for b in range(20)]
    first = torch.stack([torch.randn(64, generator=seeded(*numbers)) for numbers in tuples])
    correlation = torch.corrcoef(first) - torch.eye(len(tuples))
    assert float(correlation.abs().max()) < 0.65  # 80,000 pairs of 64 normal numbers: 5 standard deviations
