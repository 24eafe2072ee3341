import math
import multiprocessing

import pytest
import torch
from scipy.stats import ttest_rel
from tolerances import IDENTITY
from validation_ranks import collect_rank

from bsa_lightning.distillation.clip_errors import ClipErrors, compare, is_finite


def collected(*batches):
    errors = ClipErrors()
    for index, values, counts in batches:
        errors.update(torch.tensor(index), torch.tensor(values), torch.tensor(counts))
    return errors.compute()


def test_errors_are_in_the_order_of_the_clips_without_those_that_fill():
    found = collected(([3, 0], [3.0, 0.5], [True, True]), ([1, -1], [1.0, 99.0], [True, False]), ([-1], [9.0], [False]))
    assert found.tolist() == [0.5, 1.0, 3.0]
    assert found.dtype is torch.float64


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_rank_has_the_errors_of_all_clips(tmp_path):
    """One of them has two clips, the other one and filling."""
    multiprocessing.set_forkserver_preload(["bsa_lightning.distillation.clip_errors"])
    torch.multiprocessing.start_processes(collect_rank, (2, str(tmp_path)), nprocs=2, start_method="forkserver")
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt").tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_the_interval_is_that_of_a_paired_t_test(shift):
    generator = torch.Generator().manual_seed(1)
    best, noise = torch.rand(2, 12, generator=generator, dtype=torch.float64)
    now = best + 0.3 * (noise - noise.mean()) + shift
    found = compare(now, 20, best, 10)
    expected = ttest_rel(now.numpy(), best.numpy()).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=IDENTITY["rtol"], abs=IDENTITY["atol"])
    assert (found.update, found.best_update, found.num_clips) == (20, 10, 12)
    assert found.error == pytest.approx(float(now.mean()), abs=IDENTITY["atol"])
    assert (found.is_lower, found.is_higher) == (shift < 0, shift > 0)


def test_the_same_errors_are_neither_lower_nor_higher():
    errors = torch.tensor([0.1, 0.5]).double()
    found = compare(errors, 2, errors, 1)
    assert (found.is_lower, found.is_higher, found.low, found.high) == (False, False, 0.0, 0.0)
    assert "higher than after 1 by 0, which may be chance" in str(found)


def test_one_clip_decides_nothing():
    found = compare(torch.tensor([0.1]).double(), 2, torch.tensor([0.5]).double(), 1)
    assert math.isinf(found.half_width)
    assert (found.is_lower, found.is_higher) == (False, False)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_error_that_is_no_number_is_higher(value):
    found = compare(torch.tensor([0.1, value]).double(), 2, torch.tensor([0.5, 0.5]).double(), 1)
    assert (found.is_lower, found.is_higher) == (False, True)
    assert not is_finite(torch.tensor([0.1, value]))
    assert is_finite(torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize(("errors", "words"), [
    ([0.1, 0.1], "after 4 updates the trajectory error is 0.1, lower than after 2 by 0.4 (95 % interval of the"),
    ([0.9, 0.9], "higher than after 2 by 0.4 (95 % interval of the difference: +0.4 to +0.4, 2 clips)"),
    ([0.1, 0.8], "lower than after 2 by 0.05, which may be chance (95 % interval of the difference: -4.5 to +4.4,"),
])  # fmt: skip
def test_what_is_said_of_a_comparison(errors, words):
    assert words in str(compare(torch.tensor(errors).double(), 4, torch.tensor([0.5, 0.5]).double(), 2))
