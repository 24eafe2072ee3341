from dataclasses import FrozenInstanceError

import pytest

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.schedule import CosineSchedule, TableSchedule, scaled_linear
from bsa_lightning.diffusion.weighting import BSA
from bsa_lightning.distillation import rounds
from bsa_lightning.distillation.rounds import Plan


def test_tango_rounds():
    plan = Plan(200, 25, [10, 20, 30])
    assert [(r.num_steps, r.updates) for r in plan.rounds] == [(100, 10), (50, 20), (25, 30)]
    assert [r.folder for r in plan.rounds] == ["1-100steps", "2-50steps", "3-25steps"]


def test_rounds_with_limits():
    plan = Plan(200, 25, [10, 20, 4], most_updates=[11, 30, 8])
    assert [(r.updates, r.most_updates, r.stretch) for r in plan.rounds] == [(10, 11, 2), (20, 30, 4), (4, 8, 1)]
    assert [r.most_updates for r in Plan(8, 2, 10, most_updates=20).rounds] == [20, 20]
    assert [r.most_updates for r in Plan(8, 2, 10, patience=2).rounds] == [None, None]
    plans = [Plan(8, 2, 10), Plan(8, 2, 10, patience=2), Plan(8, 2, 10, most_updates=20)]
    assert [plan.is_adaptive for plan in plans] == [False, True, True]


def test_one_long_jump():
    assert [(r.num_steps, r.folder) for r in Plan(64, 4, 10, factor=16).rounds] == [(4, "1-4steps")]
    assert [r.num_steps for r in Plan(81, 1, 10, factor=3).rounds] == [27, 9, 3, 1]


@pytest.mark.parametrize(("start", "end"), [(200, 24), (25, 12), (8, 8), (4, 8), (7, 1)])
def test_steps_that_cannot_be_halved(start, end):
    with pytest.raises(UserError, match=f"{start} steps cannot be halved to {end}"):
        Plan(start, end, 1)


@pytest.mark.parametrize(("settings", "message"), [
    ({"updates": [1, 2]}, "updates lists 2 rounds"),
    ({"updates": 0}, "updates is 0, but must be a whole number, at least 1"),
    ({"updates": 1, "patience": 0}, "patience is 0"),
    ({"updates": [9, 2, 9], "patience": 1}, "patience or most_updates needs 3 updates, .* but updates is 2"),
    ({"updates": 9, "most_updates": 9}, "most_updates is 9, but must be a whole number, at least 10; updates is 9"),
    ({"updates": [9, 20, 9], "most_updates": 10}, "most_updates is 10, but must be a whole number, at least 21"),
    ({"updates": 9, "most_updates": [10, 11]}, "most_updates lists 2 rounds"),
    ({"updates": 9, "most_updates": 10.5}, "most_updates is 10.5"),
    ({"updates": 1, "factor": 1}, "factor is 1"),
    ({"updates": 1, "factor": 3}, "64 steps cannot be divided by 3 to 8: .* a power of 3"),
])  # fmt: skip
def test_other_mistakes(settings, message):
    with pytest.raises(UserError, match=message):
        Plan(64, 8, **settings)


def test_a_student_off_diffusers_grid_is_refused():
    schedule = TableSchedule(scaled_linear(beta_start=0.00085, beta_end=0.012, num_timesteps=1000))
    Plan(200, 25, 1).check_schedule(schedule)
    Plan(64, 8, 1, off_grid=True).check_schedule(schedule)
    with pytest.raises(UserError, match="student of 32 steps"):
        Plan(64, 8, 1).check_schedule(schedule)


def test_a_plan_cannot_be_changed_and_halves_on_the_grid_where_nothing_else_is_said():
    plan = Plan(2, 1, 3, patience=1)
    assert (plan.factor, plan.off_grid) == (2, False)
    for part, name in ((plan, "end_steps"), (plan.rounds[0], "updates")):
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start_steps": 8.0}, "start_steps is 8.0"),
        ({"start_steps": 0}, "start_steps is 0"),
        ({"start_steps": 1}, "1 steps cannot be halved"),
        ({"end_steps": 1.0}, "end_steps is 1.0"),
        ({"end_steps": 0}, "end_steps is 0"),
        ({"factor": 2.0}, "factor is 2.0"),
        ({"updates": [1, 1.5, 1]}, "updates is 1.5"),
        ({"updates": 1.0}, "updates is 1.0"),
        ({"patience": 1.5}, "patience is 1.5"),
    ],
)
def test_numbers_are_whole_and_at_least_one(settings, message):
    with pytest.raises(UserError, match=message):
        Plan(**{"start_steps": 8, "end_steps": 1, "updates": 1} | settings)


def test_a_teacher_has_no_more_steps_than_its_schedule():
    schedule = TableSchedule(scaled_linear(beta_start=0.00085, beta_end=0.012, num_timesteps=1000))
    Plan(1000, 500, 1).check_schedule(schedule)
    with pytest.raises(UserError, match="start_steps is 2000"):
        Plan(2000, 1000, 1).check_schedule(schedule)


def test_a_weighting_is_tried_at_all_times_of_each_round(monkeypatch):
    seen, schedule = [], CosineSchedule()
    monkeypatch.setattr(rounds, "check_weights", lambda *words, where: seen.append((*words, where)))
    Plan(8, 2, 1).check_weighting(weighting := BSA(), schedule)
    assert [(*words[:2], words[3]) for words in seen] == [
        (weighting, schedule, f"in the round of {num_steps} steps") for num_steps in (4, 2)
    ]
    assert [times.tolist() for _, _, times, _ in seen] == [[1.0, 0.75, 0.5, 0.25], [1.0, 0.5]]
