"""What is decided by the trajectory errors of validations, without any training."""

import logging
import math

import pytest
import torch

from bsa_lightning.distillation.round_budget import RoundBudget
from bsa_lightning.distillation.rounds import Plan

CLIPS = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
SPREAD = torch.tensor([-0.01, 0.0, 0.01], dtype=torch.float64)


def budget_of(updates=20, **limits):
    return RoundBudget(Plan(8, 4, updates, **limits))


def judged(budget, *validations):
    """Validates at (updates, mean error); clips differ from one another by far more than an error changes."""
    return [budget.judge(at, CLIPS + error + SPREAD.roll(at) * 0.1) for at, error in validations]


def rates(budget, updates):
    return [budget.rate(step) for step in range(updates + 1)]


def test_a_fixed_round_takes_its_updates_under_a_falling_rate():
    budget = budget_of(7)
    assert (budget.planned, budget.is_over(6), budget.is_over(7)) == (7, False, True)
    assert rates(budget, 8) == [max(0.0, 1 - step / 7) for step in range(9)]
    assert not any(map(budget.must_validate, range(9)))
    assert budget.record() == {}


@pytest.mark.parametrize(("updates", "cooldown"), [(20, 4), (3, 1), (9, 1), (14, 2)])
def test_an_adaptive_round_holds_the_rate_and_then_lets_it_fall(updates, cooldown):
    budget, hold = budget_of(updates, patience=9), updates - cooldown
    assert (budget.planned, rates(budget, updates)) == (updates, [1.0] * (updates + 1))
    judged(budget, (hold, 0.0))
    assert (budget.planned, budget.is_over(updates - 1), budget.is_over(updates)) == (updates, False, True)
    assert rates(budget, updates) == [1.0] * hold + [1 - i / cooldown for i in range(cooldown + 1)]


def test_it_is_extended_by_a_fifth_while_the_error_falls():
    budget = budget_of(most_updates=27)
    verdicts = judged(budget, (12, 0.9), (16, 0.8), (20, 0.7))
    assert [verdict.is_best for verdict in verdicts] == [True] * 3
    assert budget.planned == 27  # the last time by three updates, as far as the limit allows
    assert not judged(budget, (23, 0.6))[0].is_rolled_back
    assert (budget.planned, budget.is_over(26), budget.is_over(27)) == (27, False, True)
    judged(budget, (27, 0.5))
    decisions = budget.record()["budget"]["decisions"]
    assert [words.split(",")[0] for words in decisions] == [
        "extended to 24 updates", "extended to 27 updates", "cooldown from update 23 to 27", decisions[3].split(",")[0],
    ]  # fmt: skip
    assert (
        "of at most 27, since after 16 updates the trajectory error is 3.8, lower than after 12 by 0.1" in decisions[0]
    )
    assert "most_updates allow no more, though after 23 updates the trajectory error is 3.6, lower" in decisions[2]
    assert decisions[3].startswith("ended after 27 updates: after 27 updates the trajectory error is 3.5, lower than")


@pytest.mark.parametrize(
    ("validations", "is_extended"),
    [
        (((12, 0.9), (16, 0.9)), False),
        (((12, 0.9), (14, 0.8), (16, 0.8)), True),  # it fell in the last fifth, and holds
        (((12, 0.9), (14, 0.8), (16, 0.85)), False),  # it has risen again
        (((8, 0.9), (12, 0.8), (16, 0.8)), False),  # it fell before the last fifth
        (((8, 0.9), (12, 0.9), (16, 0.8)), True),
        (((16, 0.9),), False),  # nothing to compare with
        (((14, 0.9), (16, 0.9)), False),  # the first validation is no fall
    ],
)
def test_what_counts_as_a_fall(validations, is_extended):
    budget = budget_of(most_updates=40)
    assert not any(verdict.is_rolled_back for verdict in judged(budget, *validations[:-1]))
    judged(budget, validations[-1])
    assert budget.planned == (24 if is_extended else 20)


def test_validations_are_asked_for_where_it_decides():
    budget = budget_of(most_updates=40)
    assert [at for at in range(18) if budget.must_validate(at)] == [12, 16, 17]
    judged(budget, (12, 0.9))
    assert not budget.must_validate(12)
    judged(budget, (16, 0.8))
    assert [at for at in range(17, 21) if budget.must_validate(at)] == [20]
    judged(budget, (20, 0.8))
    assert [at for at in range(21, 30) if budget.must_validate(at)] == [24]
    assert [at for at in range(17) if budget_of(patience=2).must_validate(at)] == [16]


def test_it_ends_early_after_so_many_validations_in_a_row_that_are_not_lower():
    budget = budget_of(patience=2)
    judged(budget, (2, 0.9), (4, 0.9), (6, 0.8), (8, 0.8))
    assert budget.planned == 20
    judged(budget, (10, 0.8))
    assert (budget.planned, budget.is_over(13), budget.is_over(14)) == (14, False, True)
    assert budget.rate(10) == 1.0
    assert budget.rate(11) == 0.75
    assert "cooldown from update 10 to 14, since the error has not fallen at 2 validations in a row: after" in str(
        budget.record()
    )


@pytest.mark.parametrize("limits", [{"most_updates": 40}, {"patience": 1}, {"patience": 9}])
def test_a_risen_error_goes_back_before_the_cooldown(limits):
    budget = budget_of(**limits)
    *_, last = judged(budget, (12, 0.8), (16, 0.9))
    assert (last.is_best, last.is_rolled_back, last.numbers["rolled_back"]) == (False, True, 1.0)
    # The optimizer is new, and so counts its updates anew.
    assert [budget.rate(step) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert budget.is_over(20)
    (last,) = judged(budget, (20, 0.7))
    assert (last.is_rolled_back, budget.record()["budget"]["kept"]) == (False, 20)


def test_a_risen_error_goes_back_at_the_end(caplog):
    caplog.set_level(logging.INFO)
    budget = budget_of(patience=9)
    *_, middle, end = judged(budget, (12, 0.8), (14, 0.9), (16, 0.801), (18, 0.9), (20, 0.9))
    assert (middle.is_rolled_back, end.is_rolled_back) == (False, True)
    record = budget.record()["budget"]
    assert (record["kept"], record["updates"], record["most_updates"], record["patience"]) == (12, 20, None, 9)
    assert record["decisions"][0] == "cooldown from update 16 to 20, as planned"
    assert record["decisions"][1].startswith("rolled back to the weights after 12 updates: after 20 updates the")
    assert record["decisions"][2] == "ended after 20 updates"
    assert [entry.getMessage() for entry in caplog.records] == [f"round 1: {words}" for words in record["decisions"]]


def test_an_error_that_may_be_chance_neither_ends_nor_goes_back():
    budget = budget_of(most_updates=40)
    judged(budget, (12, 0.8))
    verdict = budget.judge(16, CLIPS + 0.81 + SPREAD * 5)
    assert (verdict.is_best, verdict.is_rolled_back, budget.planned) == (False, False, 20)


def test_steps_that_are_too_small_each_count_together():
    """Over clips that vary by 0.1, a fall by 0.08 is none, but the next is, from where the first began."""
    budget, spread = budget_of(most_updates=40, patience=2), torch.tensor([-0.1, 0.0, 0.1]).double()
    noisy = [CLIPS + error + spread * sign for error, sign in ((0.9, 0), (0.82, 0.4), (0.74, -0.4), (0.72, 0.4))]
    verdicts = [budget.judge(at, errors) for at, errors in zip((10, 12, 14, 16), noisy, strict=True)]
    assert [verdict.is_best for verdict in verdicts] == [True] * 4
    assert budget.planned == 24
    assert "since after 14 updates the trajectory error is 3.74, lower than after 10 by 0.16" in str(budget.record())


def test_the_best_weights_are_those_of_the_lowest_error():
    """Whether or not it had fallen there beyond chance: a rise from there is a rise."""
    budget = budget_of(patience=9)
    wide = torch.tensor([-3.0, 0.0, 3.0]).double()
    verdicts = [
        budget.judge(at, CLIPS + errors) for at, errors in ((8, wide + 0.9), (12, wide * 0.1), (16, wide * 0.1 + 0.2))
    ]
    assert [verdict.is_best for verdict in verdicts] == [True, True, False]
    assert verdicts[-1].is_rolled_back
    assert budget.record()["budget"]["decisions"][0].startswith("rolled back to the weights after 12 updates")


def test_the_first_of_weights_that_are_equally_good_is_the_best():
    budget = budget_of(patience=9)
    assert [budget.judge(at, CLIPS).is_best for at in (8, 12)] == [True, False]


def test_errors_that_are_no_numbers_are_never_the_best():
    budget = budget_of(most_updates=40)
    first, second, third = judged(budget, (8, math.nan), (12, 0.8), (16, math.nan))
    assert (first.is_best, second.is_best, third.is_best, third.is_rolled_back) == (False, True, False, True)
    assert [verdict.numbers["best_update"] for verdict in (first, second, third)] == [0.0, 12.0, 12.0]
    assert [verdict.is_rolled_back for verdict in judged(budget_of(patience=9), (8, math.nan), (16, math.nan))] == [
        False, False,
    ]  # fmt: skip


def test_weights_are_judged_once():
    budget = budget_of(patience=1)
    judged(budget, (2, 0.8))
    assert judged(budget, (2, 0.9)) == [None]
    assert budget.planned == 20


def test_the_numbers_of_a_validation():
    first, second = judged(budget_of(most_updates=40), (12, 0.9), (16, 0.8))
    assert {type(number) for number in second.numbers.values()} == {float}
    assert first.numbers == {"planned_updates": 20.0, "best_update": 12.0, "rolled_back": 0.0}
    assert second.numbers.keys() - first.numbers.keys() == {
        "trajectory_change", "trajectory_change_low", "trajectory_change_high",
    }  # fmt: skip
    assert second.numbers["trajectory_change"] == pytest.approx(-0.1)
    assert second.numbers["trajectory_change_low"] < -0.1 < second.numbers["trajectory_change_high"] < 0
    assert (second.numbers["planned_updates"], second.numbers["best_update"]) == (24.0, 16.0)


@pytest.mark.parametrize("at", range(1, 6))
def test_a_restored_budget_decides_the_same(at, tmp_path):
    validations = [(8, 0.9), (12, 0.8), (16, 0.7), (20, 0.9), (24, 0.95)]
    whole, first, second = (budget_of(most_updates=40, patience=3) for _ in range(3))
    expected = judged(whole, *validations)
    judged(first, *validations[:at])
    first.best_weights = {"student": {"w": torch.ones(1)}}
    torch.save(first.state_dict(), file := tmp_path / "checkpoint")
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.best_weights == first.best_weights
    assert judged(second, *validations[at:]) == expected[at:]
    assert second.record() == whole.record()
    assert rates(second, 30) == rates(whole, 30)


def test_the_next_round_knows_nothing_of_the_last():
    plan = Plan(8, 2, 20, most_updates=[40, 25])
    budget = RoundBudget(plan)
    judged(budget, (12, 0.9), (16, 0.8), (20, 0.9))
    budget.best_weights = {"student": {}}
    budget.begin(plan.rounds[1])
    fresh = RoundBudget(plan)
    fresh.begin(plan.rounds[1])
    assert budget.state_dict() == fresh.state_dict()
    assert budget.record()["budget"]["most_updates"] == 25
