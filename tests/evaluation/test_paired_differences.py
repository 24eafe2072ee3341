import csv
from types import SimpleNamespace

import pytest
import torch
from frechet_rows import features, store_of
from tolerances import IDENTITY

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.differences_file import DifferenceRow, write_differences
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.metrics.kernel import NoValueError
from bsa_lightning.evaluation.paired_differences import compare, paired_difference, resample, resample_all
from bsa_lightning.evaluation.row_store import ClipRows, load_rows, mean, save_rows

CLIPS = list(range(40))


def paired(measure, *systems, **options):
    return paired_difference(*(resample(measure, rows, **options) for rows in systems))


def compared(measures, *systems, **options):
    return compare(*(resample_all(measures, rows, **options) for rows in systems))


def of_values(values):
    return ClipRows(torch.arange(len(values)), torch.ones(len(values), dtype=torch.long), values[:, None].double())


def test_interval_of_a_mean_is_the_known_one():
    """Also that clips are paired: what both share does not widen it."""
    shared, own = torch.randn(2, 81, generator=torch.Generator().manual_seed(0)).double()
    first, second = of_values(100 * shared + own), of_values(100 * shared)
    found = paired(mean, first, second, num_resamples=2000)
    assert found.difference == pytest.approx(float(own.mean()), rel=1e-9)
    half_width = 1.991 * float(own.std()) / 9  # Student's quantile of 77 degrees of freedom
    assert found.high - found.difference == pytest.approx(half_width, rel=0.05)
    assert found.difference - found.low == pytest.approx(half_width, rel=0.05)


@pytest.mark.parametrize(("num_clips", "student"), [(20, 2.2441), (21, 2.2363)])
def test_a_spread_of_few_clips_and_few_halves_is_known_the_less(num_clips, student):
    """Of 20 clips and 20 halves: Student's t of 9.5 degrees of freedom; the spread is that of the halves themselves.

    Of an odd number, halves of m of n are too small by one, and their spread by the root of m / (n - m) too large.
    """
    generator = torch.Generator().manual_seed(0)
    first, second = (of_values(torch.randn(num_clips, generator=generator)) for _ in range(2))
    seen = []

    def noted(rows):
        seen.append(mean(rows))
        return seen[-1]

    found = paired(noted, first, second, num_resamples=20)
    halves = torch.tensor(seen[:20], dtype=torch.float64) - torch.tensor(seen[21:41], dtype=torch.float64)
    m = num_clips // 2
    expected = student * float(halves.std()) * (m / (num_clips - m)) ** 0.5
    assert found.high - found.difference == pytest.approx(expected, rel=1e-4)
    assert type(found.high) is float


def test_a_system_does_not_differ_from_itself_and_order_is_a_sign():
    reference, first, second = (store_of(CLIPS, seed).compute() for seed in range(3))
    measure = Measures(LogMelStatistics(), reference).frechet
    assert paired(measure, first, first)[:3] == (0, 0, 0)
    forth, back = paired(measure, first, second), paired(measure, second, first)
    torch.testing.assert_close(forth[:3], (-back[0], -back[2], -back[1]), **IDENTITY)
    assert forth == paired(measure, first, second)


def test_a_worse_system_is_told_from_a_better_one():
    reference, better = (store_of(CLIPS, seed).compute() for seed in range(2))
    worse = ClipRows(better.clips, better.counts, better.rows * 2)
    found = paired(Measures(LogMelStatistics(), reference).frechet, worse, better)
    assert 0 < found.low < found.difference < found.high


def test_unpaired_or_too_few_clips_are_refused():
    store = store_of(CLIPS).compute()
    with pytest.raises(UserError, match="scored on different clips"):
        paired(mean, store, store_of(CLIPS[1:]).compute())
    with pytest.raises(UserError, match="needs 20 clips, but there are 19"):
        paired(mean, *2 * [store_of(CLIPS[:19]).compute()])


def test_rows_on_disk_give_the_same_file(tmp_path):
    reference, *systems = (store_of(CLIPS, seed, logits=True).compute() for seed in range(3))
    measures = [Measures(LogMelStatistics(), reference)]
    for i, system in enumerate(systems):
        save_rows(tmp_path / f"{i}.safetensors", {"logmel": system, "other": system})
    found = compared(measures, *(load_rows(tmp_path / f"{i}.safetensors") for i in range(2)), num_resamples=5)
    assert found == compared(measures, *({"logmel": system} for system in systems), num_resamples=5)
    write_differences(tmp_path / "differences.csv", [DifferenceRow("a", "b", 0, *item, True) for item in found.items()])
    with (tmp_path / "differences.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["metric"] for row in rows] == ["fd_logmel", "kad_logmel", "kl_logmel", "kl_sigmoid_logmel", "is_logmel"]
    assert float(rows[0]["difference"]) == pytest.approx(found["fd_logmel"].difference, rel=1e-8)
    assert {(row["num_clips"], row["best_rival"]) for row in rows} == {("40", "yes")}


def test_trajectory_errors_are_a_mean_over_clips():
    shared, own = torch.randn(2, 81, generator=torch.Generator().manual_seed(0)).double()
    first, second = of_values(shared + own), of_values(shared)
    found = compared([], {"trajectory_error": first}, {"trajectory_error": second}, num_resamples=50)
    assert found == {"trajectory_error": paired(mean, first, second, num_resamples=50)}
    assert compared([], {"trajectory_error": first}, {}) == {}


def test_rows_come_back_from_a_file(tmp_path):
    expected = features(CLIPS, logits=True)
    save_rows(tmp_path / "a.safetensors", {"some.name": store_of(CLIPS, logits=True).compute()})
    found = load_rows(tmp_path / "a.safetensors")["some.name"]
    assert torch.equal(found.rows.float(), expected.rows.flatten(0, 1))
    assert torch.equal(found.logits.float(), expected.logits)


def test_a_hundred_halves_are_drawn_by_a_seed_of_zero_where_nothing_else_is_said():
    rows = of_values(torch.randn(20, generator=torch.Generator().manual_seed(0)))
    found = resample(mean, rows)
    assert len(found.halves) == len(resample_all([], {"trajectory_error": rows})["trajectory_error"].halves) == 100
    assert torch.equal(found.halves, resample(mean, rows, seed=0).halves)
    assert not torch.equal(found.halves, resample(mean, rows, seed=1).halves)


def test_a_metric_without_a_value_is_left_out_and_the_others_stay():
    def none(rows):
        raise NoValueError("no value")

    rows = of_values(torch.arange(20))
    measures = SimpleNamespace(
        embedding=SimpleNamespace(name="a"), by_name=lambda rows: {"none_a": none, "mean_a": mean}
    )
    assert list(resample_all([measures], {"a": rows}, num_resamples=3)) == ["mean_a"]
