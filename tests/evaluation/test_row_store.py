import multiprocessing

import pytest
import torch
from frechet_rows import features, rank_of_several, store_of

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.base import Features
from bsa_lightning.evaluation.metrics.frechet import frechet_distance_of_rows
from bsa_lightning.evaluation.row_store import ClipRows, RowStore

CLIPS = list(range(11))


def same(found, expected):
    found, expected = (side.tensors() if isinstance(side, ClipRows) else side for side in (found, expected))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_rows_are_in_the_order_of_clips_whatever_the_batches(batch_size):
    shuffled = store_of([7, 2, 10, 0, 5, 1, 9, 3, 8, 4, 6], batch_size=batch_size, logits=True).compute()
    expected = features(CLIPS, logits=True)
    assert shuffled.clips.tolist() == CLIPS
    assert torch.equal(shuffled.rows, expected.rows.flatten(0, 1).double())
    assert torch.equal(shuffled.logits, expected.logits.double())


def test_a_clip_that_comes_again_counts_once():
    same(store_of([0, 1, 2, 1, 0]).compute(), store_of([0, 1, 2]).compute())


def test_clips_may_have_different_numbers_of_rows():
    store = RowStore(4)
    store.update(Features(torch.ones(1, 3, 4)), [5])
    store.update(Features(torch.zeros(2, 1, 4)), [9, 2])
    found = store.compute()
    assert found.counts.tolist() == [1, 3, 1]
    assert found.rows.sum(1).tolist() == [0, 4, 4, 4, 0]
    assert found.of(torch.tensor([9, 5])).rows.sum(1).tolist() == [0, 4, 4, 4]
    with pytest.raises(UserError, match=r"clips \[3\] were never embedded"):
        found.of(torch.tensor([2, 3]))


@pytest.mark.parametrize(("world_size", "num_clips"), [(2, 11), (4, 11), (4, 3)])
def test_ranks_are_one(tmp_path, world_size, num_clips):
    multiprocessing.set_forkserver_preload(["bsa_lightning.evaluation.row_store"])  # whose imports take seconds
    arguments = (world_size, num_clips, str(tmp_path))
    torch.multiprocessing.start_processes(rank_of_several, arguments, nprocs=world_size, start_method="forkserver")
    alone = store_of(list(range(num_clips)), logits=True).compute()
    other = store_of(CLIPS, 1).compute()
    for rank in range(world_size):
        together = ClipRows.from_tensors(torch.load(tmp_path / f"{rank}.pt"))
        same(together, alone)
        expected = frechet_distance_of_rows(other.rows, alone.rows)
        torch.testing.assert_close(frechet_distance_of_rows(other.rows, together.rows), expected, rtol=1e-10, atol=0)


def test_nothing_enters_a_checkpoint_and_precision_stays():
    store = store_of(CLIPS, logits=True).half().to("cpu")
    store.set_dtype(torch.float16)
    assert store.state_dict() == {}
    assert list(store.parameters()) == []
    assert {part.dtype for part in store.rows} == {torch.float64}


def test_reset_forgets():
    store = store_of(CLIPS)
    store.compute()
    store.reset()
    store.update(features([3]), [3])
    same(store.compute(), store_of([3]).compute())


def test_broken_embeddings_are_refused():
    with pytest.raises(UserError, match="not finite"):
        RowStore(4).update(Features(torch.full((1, 2, 4), torch.nan)), [0])
    with pytest.raises(UserError, match="not finite"):
        RowStore(4).update(Features(torch.ones(1, 2, 4), torch.full((1, 3), torch.inf)), [0])
    with pytest.raises(UserError, match=r"gave rows \(1, 2, 3\) for 1 clips, but \(1, rows of a clip, 4\)"):
        RowStore(4).update(Features(torch.ones(1, 2, 3)), [0])
    with pytest.raises(UserError, match=r"gave rows \(2, 4\) for 2 clips"):
        RowStore(4).update(Features(torch.ones(2, 4)), [0, 1])
