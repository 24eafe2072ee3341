"""What a module knows of its rounds, without any training."""

import torch
from ladder import module_of, trainer_of

from bsa_lightning.distillation import rounds_module
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.distillation.rounds_module import RoundsModule

PLAN = Plan(8, 1, [3, 5, 7])
ADAPTIVE = Plan(8, 1, [3, 5, 7], patience=2)


def test_updates_are_those_of_the_rounds_so_far_and_of_all_to_come(teacher_folder):
    module = module_of(teacher_folder, plan=PLAN)
    assert (module.planned_updates, module.current_budget) == (15, 3)
    RoundsModule.on_load_checkpoint(module, {"round": 1, "round_start": 4})  # the first took one more than planned
    assert (module.planned_updates, module.current_budget) == (4 + 5 + 7, 5)


def test_the_next_round_begins_with_a_budget_of_its_own(teacher_folder, tmp_path, monkeypatch):
    restarted = []
    monkeypatch.setattr(rounds_module, "restart_optimizers", lambda trainer: restarted.append(trainer))
    module = module_of(teacher_folder, plan=PLAN)
    module.trainer = trainer = trainer_of(tmp_path)
    monkeypatch.setattr(type(module), "global_step", 3)
    module.begin_next_round()
    assert (module.round, module.round_start, module.current_budget) == (1, 3, 5)
    assert restarted == [trainer]


def test_a_checkpoint_holds_what_is_decided_where_there_is_something_to_decide(teacher_folder):
    fixed, first, second = (module_of(teacher_folder, plan=plan) for plan in (PLAN, ADAPTIVE, ADAPTIVE))
    RoundsModule.on_save_checkpoint(fixed, checkpoint := {})
    assert "budget" not in checkpoint
    first.budget.judge(2, torch.tensor([1.0, 2.0], dtype=torch.float64))
    RoundsModule.on_save_checkpoint(first, checkpoint := {})
    assert checkpoint["budget"] == first.budget.state_dict()
    assert second.budget.state_dict() != first.budget.state_dict()
    RoundsModule.on_load_checkpoint(second, checkpoint)
    assert second.budget.state_dict() == first.budget.state_dict()
