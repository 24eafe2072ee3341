"""What is done with the weights, the optimizer and the validations of an adaptive round."""

import logging
from types import SimpleNamespace

import pytest
import torch
from ladder import data_of, module_of, trainer_of
from lightning.pytorch import Callback

from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation.round_budget import RoundBudget
from bsa_lightning.distillation.round_judge import RoundJudge
from bsa_lightning.distillation.rounds import Plan

CLIPS = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)


class Look(Callback):
    """Notes updates, learning rates and weights."""

    def __init__(self, module):
        self.module, self.weights, self.rates, self.states = module, {}, [], []

    def now(self):
        networks = self.module.trained_networks.items()
        return {f"{name}.{key}": tensor.clone() for name, net in networks for key, tensor in net.state_dict().items()}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.states.append(len(trainer.optimizers[0].state))
        self.weights[f"before {pl_module.global_step + 1}"] = self.now()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights[f"after {pl_module.global_step}"] = self.now()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture
def scripted(teacher_folder, latents_folder, tmp_path):
    """Trains with validations after every third update, whose errors are those of a script, by update."""

    def train(script, **settings):
        module = module_of(teacher_folder, ema_decay=0.5, **settings)
        seen, look = [], Look(module)
        module.clip_errors.compute = lambda: seen.append(module.global_step) or CLIPS + script[module.global_step]
        trainer = trainer_of(
            tmp_path, look, limit_val_batches=1, val_check_interval=3, check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(module, data_of(latents_folder))
        return module, seen, look

    return train


def test_a_round_is_extended_rolled_back_and_cooled_down(scripted, tmp_path, caplog):
    """Extended to 12 updates at update 8, and rolled back at update 10 to what it was at update 9."""
    caplog.set_level(logging.INFO)
    script = {3: 0.9, 6: 0.8, 8: 0.7, 9: 0.6, 10: 0.9, 12: 0.5}
    module, seen, look = scripted(script, plan=Plan(8, 4, 10, most_updates=14))
    assert seen == list(script)  # every third update, and where the round decides
    assert module.global_step == 12
    assert module.trainer.callback_metrics["val/planned_updates"] == 12
    assert look.rates == [1e-3] * 11 + [0.5e-3]
    assert same(look.weights["before 11"], look.weights["after 9"])
    assert not same(look.weights["after 10"], look.weights["after 9"])
    assert (look.states[0], look.states[10]) == (0, 0)  # a new optimizer, as at the start
    assert 0 < look.states[9] == look.states[11]
    assert same(look.now(), look.weights["after 12"])
    assert "round 1: rolled back to the weights after 9 updates: after 10 updates the trajectory error" in caplog.text
    assert '"kept": 12' in (tmp_path / "rounds" / "1-4steps" / "provenance.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("last", [False, True])
def test_a_round_that_has_risen_hands_on_its_best_weights(scripted, tmp_path, last):
    script = {3: 0.9, 4: 0.8, 5: 0.9, 6: 0.9, 8: 0.7, 9: 0.7, 10: 0.7, 12: 0.7}
    plan = Plan(8, 4 if last else 2, 5, patience=9)
    module, seen, look = scripted(script, plan=plan)
    assert seen == ([3, 4, 5] if last else [3, 4, 5, 6, 9, 10])
    provenance = (tmp_path / "rounds" / "1-4steps" / "provenance.json").read_text()
    assert '"kept": 4' in provenance
    end = look.now() if last else look.weights["before 6"]
    average = {name: tensor for name, tensor in look.weights["after 4"].items() if name.startswith("average")}
    assert same({name: tensor for name, tensor in end.items() if name.startswith("average")}, average)
    assert module.budget.is_over(5)


@pytest.mark.slow
def test_the_errors_are_those_of_the_validation(teacher_folder, latents_folder, tmp_path):
    """Their mean is the logged trajectory error, at each validation anew."""
    module, seen = module_of(teacher_folder, plan=Plan(8, 4, 5, patience=9)), []
    judge = module.budget.judge

    def noted(updates, errors):
        seen.append(errors)
        return judge(updates, errors)

    module.budget.judge = noted
    trainer = trainer_of(tmp_path, limit_val_batches=1.0, val_check_interval=4, check_val_every_n_epoch=None)
    trainer.fit(module, data_of(latents_folder, num_val_clips=6))
    assert [len(errors) for errors in seen] == [6, 6]
    assert float(seen[-1].mean()) == pytest.approx(float(trainer.callback_metrics["val/trajectory_error"]))
    assert trainer.callback_metrics["val/trajectory_change"] == pytest.approx(float((seen[1] - seen[0]).mean()))


def module_like(*, plan=None, pending=False, num_clips=5, has_val=True):
    reader = type("Reader", (), {"index": {"clips": "a"}, "__len__": lambda _: num_clips})()
    return SimpleNamespace(
        budget=RoundBudget(plan or Plan(8, 4, 10, patience=2)), has_pending_gradients=pending, updates_in_round=8,
        is_round_over=False, trained_networks={},
        clip_errors=SimpleNamespace(compute=lambda: CLIPS, reset=lambda: None),
        data=SimpleNamespace(val_reader=reader if has_val else None, num_val_clips=128),
    )  # fmt: skip


def trainer_like(**settings):
    defaults = {
        "limit_val_batches": 1.0, "check_val_every_n_epoch": None, "val_check_interval": 50, "world_size": 1,
        "sanity_checking": False, "state": SimpleNamespace(fn="fit"), "val_check_batch": 50,
    }  # fmt: skip
    return SimpleNamespace(**defaults | settings)


@pytest.mark.parametrize(
    ("trainer", "module", "message"),
    [
        ({}, {"has_val": False}, "data.val is None, but"),
        ({}, {"num_clips": 1}, "data.val has one clip"),
        ({"limit_val_batches": 0}, {}, "trainer.limit_val_batches is 0"),
        ({"check_val_every_n_epoch": 2}, {}, "trainer.check_val_every_n_epoch is 2"),
        ({"val_check_interval": None}, {}, "trainer.val_check_interval is a length of time"),
    ],
)
def test_validations_that_cannot_judge_are_refused(trainer, module, message):
    judge = RoundJudge()
    with pytest.raises(UserError, match=message):
        judge.setup(trainer_like(**trainer), module_like(**module), "fit")
    judge.setup(trainer_like(**trainer), module_like(**module), "validate")
    judge.setup(trainer_like(**trainer), module_like(plan=Plan(8, 4, 10), **module), "fit")
    judge.setup(trainer_like(check_val_every_n_epoch=1), module_like(num_clips=2), "fit")


@pytest.mark.parametrize("change", ["devices", "clips"])
def test_a_round_goes_on_with_the_same_clips_and_noise(change):
    first, again, trainer = RoundJudge(), RoundJudge(), trainer_like()
    first.on_train_start(trainer, module_like())
    again.load_state_dict(first.state_dict())
    other = module_like()
    if change == "devices":
        trainer.world_size = 2
    else:
        other.data.val_reader.index["clips"] = "b"
    again.on_train_start(trainer, other)  # nothing to compare with yet
    again.load_state_dict(first.state_dict())
    other.budget.best_weights = {"student": {}}
    with pytest.raises(UserError, match={"devices": "on 2 devices and was on 1", "clips": "holds other clips"}[change]):
        again.on_train_start(trainer, other)
    other.is_round_over = True
    again.on_train_start(trainer, other)


@pytest.mark.parametrize("case", ["sanity check", "validate", "accumulation", "fixed"])
def test_what_is_not_judged(case):
    module = module_like(pending=case == "accumulation", plan=Plan(8, 4, 10) if case == "fixed" else None)
    trainer = trainer_like(sanity_checking=case == "sanity check")
    trainer.state.fn = "validate" if case == "validate" else "fit"
    module.budget.judge = lambda *_: pytest.fail("it was judged")
    RoundJudge().on_validation_epoch_end(trainer, module)


def test_a_validation_is_asked_for_once():
    module, trainer, judge = module_like(), trainer_like(), RoundJudge()
    judge.on_train_batch_end(trainer, module, None, None, 0)
    assert trainer.val_check_batch == 1
    for _ in range(2):
        judge.on_validation_start(trainer, module)
        assert trainer.val_check_batch == 50
    for changed in ({"has_pending_gradients": True}, {"updates_in_round": 7}):
        judge.on_train_batch_end(trainer, SimpleNamespace(**vars(module) | changed), None, None, 0)
        assert trainer.val_check_batch == 50


@torch.inference_mode()
def test_best_weights_may_be_trained_again_and_the_next_validation_begins_anew():
    """Lightning validates in inference mode, whose tensors no optimizer can change."""
    module, made, resets = module_like(), [], []
    with torch.inference_mode(False):
        module.trained_networks = {"student": torch.nn.Linear(2, 2)}
    module.shared_weights = lambda _: set()
    module.log = lambda name, number, **_: made.append(name)
    module.clip_errors.reset = lambda: resets.append(1)
    RoundJudge().on_validation_epoch_end(trainer_like(), module)
    assert not any(tensor.is_inference() for tensor in module.budget.best_weights["student"].values())
    assert "val/planned_updates" in made
    assert resets == [1]
