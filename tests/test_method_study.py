"""The comparison of methods spends equally many network evaluations on all of them."""

import pytest

from bsa_lightning.distillation.methods import Progressive, SegmentedConsistency
from bsa_lightning.distillation.rounds import Plan
from experiments.methods.grid import START, TARGETS, arms, evaluations_of_halving

METHODS = {"Progressive": Progressive, "SegmentedConsistency": SegmentedConsistency}


def evaluations(arm):
    """The evaluations a clip until each round ends, by the steps of its student, from the method's own account."""
    method, total, found = METHODS[arm.method](), 0, {}
    plan = Plan(start_steps=START, end_steps=arm.end_steps, factor=arm.factor, updates=list(arm.updates))
    for round_ in plan.rounds:
        predictions = method.num_predictions(method.factor(plan, round_))
        # The first teacher is guided outside, and takes all predictions of progressive targets, one of the others.
        guided = 0 if round_.index and not method.keeps_teacher else 1 if method.keeps_teacher else predictions
        total += round_.updates * (predictions + guided + 3)
        found[round_.num_steps] = total
    return found


@pytest.mark.parametrize("arm", list(arms()), ids=lambda arm: arm.name)
def test_all_arms_take_as_many_evaluations_to_a_number_of_steps(arm):
    spent = evaluations(arm)
    reached = [num_steps for num_steps in TARGETS if num_steps in spent]
    assert reached
    for num_steps in reached:
        assert spent[num_steps] == pytest.approx(evaluations_of_halving(num_steps), rel=0.01)


def test_each_number_of_steps_is_reached_in_four_ways():
    ways = {num_steps: [arm.name for arm in arms() if num_steps in evaluations(arm)] for num_steps in TARGETS}
    assert {len(names) for names in ways.values()} == {4}
