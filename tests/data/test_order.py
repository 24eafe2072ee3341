from functools import partial

import pytest
import torch

from bsa_lightning.data.order import EpochSampler, epoch_order, seeded


def batches(num_items=23, world_size=1, epochs=1, start=0, **settings):
    """All items of all ranks in the order of the stream, for so many epochs."""
    settings = {"batch_size": 2, "seed": 0} | settings
    seen = []
    for _ in range(epochs):
        position = start + len(seen) * settings["batch_size"] * world_size
        samplers = [
            EpochSampler(num_items, **settings, rank=rank, world_size=world_size, position=partial(int, position))
            for rank in range(world_size)
        ]
        seen += [[item for batch in together for item in batch] for together in zip(*samplers, strict=True)]
    return seen


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_each_item_once_an_epoch_over_all_ranks(world_size, batch_size):
    seen = [item for together in batches(world_size=world_size, batch_size=batch_size) for item, _ in together]
    step = batch_size * world_size
    assert len(seen) == len(set(seen)) == 23 // step * step


def test_ranks_share_out_what_one_process_would_read():
    alone = [item for batch in batches(batch_size=4) for item in batch]
    shared = [item for batch in batches(batch_size=2, world_size=2) for item in batch]
    assert alone == shared


def test_each_epoch_has_another_order_and_leaves_out_another_tail():
    seen = batches(epochs=2)
    first, second = ([item for batch in seen for item, epoch in batch if epoch == number] for number in (0, 1))
    assert first != second
    assert set(first) != set(second)


@pytest.mark.parametrize("after", [1, 10, 11, 12, 25])
def test_the_stream_goes_on_from_any_position(after):
    """11 batches an epoch: in the first, at its end, in the second and the third."""
    whole = batches(epochs=4)
    rest = batches(epochs=4 - after // 11, start=2 * after)
    assert rest == whole[after:]


def test_order_is_a_permutation_by_seed_and_epoch():
    order = epoch_order(50, seed=1, epoch=2)
    assert sorted(order.tolist()) == list(range(50))
    assert torch.equal(order, epoch_order(50, seed=1, epoch=2))
    assert not torch.equal(order, epoch_order(50, seed=2, epoch=1))


def test_streams_of_neighbouring_numbers_are_unrelated():
    tuples = [(a, b) for a in range(20) for b in range(20)]
    first = torch.stack([torch.randn(64, generator=seeded(*numbers)) for numbers in tuples])
    correlation = torch.corrcoef(first) - torch.eye(len(tuples))
    assert float(correlation.abs().max()) < 0.65  # 80,000 pairs of 64 normal numbers: 5 standard deviations
