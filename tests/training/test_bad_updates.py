import pytest
import torch
from ladder import StopAt, Watch, data_of, module_of, trainer_of
from lightning.pytorch import Callback

from bsa_lightning.common.errors import UserError
from bsa_lightning.training.bad_updates import BadUpdates


class Spoil(Callback):
    """Puts what must not be there into the latents of some batches."""

    def __init__(self, value, steps):
        self.value, self.steps = value, steps

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step in self.steps:
            batch.posterior.mean[0, 0] = self.value


def fit(run, teacher_folder, latents_folder, *callbacks, guard=None, **settings):
    seen = []

    def note(trainer, module, _):
        networks = [*module.student.parameters(), *module.finished_student.parameters()]
        weights = torch.cat([weight.detach().flatten() for weight in networks])
        seen.append((weights.clone(), trainer.callback_metrics.get("train/skipped_updates")))

    module = module_of(teacher_folder, **settings)
    trainer = trainer_of(run, *callbacks, guard or BadUpdates(), Watch(note))
    trainer.fit(module, data_of(latents_folder))
    return module, seen


@pytest.mark.filterwarnings("ignore:update 1 is skipped")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e18])
def test_a_bad_batch_moves_nothing_and_is_counted(teacher_folder, latents_folder, tmp_path, value):
    module, seen = fit(tmp_path, teacher_folder, latents_folder, Spoil(value, {1}), ema_decay=0.5)
    assert torch.equal(seen[1][0], seen[0][0])
    assert not torch.equal(seen[2][0], seen[1][0])
    assert seen[0][1] is None
    assert seen[1][1] == 1
    assert module.global_step == 8
    assert all(weight.isfinite().all() for weight in module.finished_student.parameters())


def test_good_updates_are_left_alone(teacher_folder, latents_folder, tmp_path):
    _, guarded = fit(tmp_path / "guarded", teacher_folder, latents_folder)
    _, free = fit(tmp_path / "free", teacher_folder, latents_folder, guard=Callback())
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(guarded, free, strict=True))


@pytest.mark.filterwarnings("ignore:update \\d is skipped")
def test_too_many_stop_the_round(teacher_folder, latents_folder, tmp_path):
    with pytest.raises(UserError, match="2 updates had no usable gradient in round 2"):
        fit(tmp_path, teacher_folder, latents_folder, Spoil(float("nan"), {1, 4, 5}), guard=BadUpdates(most=2))


@pytest.mark.filterwarnings("ignore:update \\d is skipped")
def test_the_count_is_resumed(teacher_folder, latents_folder, tmp_path):
    spoil = Spoil(float("nan"), {1, 3})
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, teacher_folder, latents_folder, spoil, StopAt(2), guard=BadUpdates(most=2))
    trainer = trainer_of(tmp_path, spoil, BadUpdates(most=2))
    with pytest.raises(UserError, match="2 updates had no usable gradient in round 1"):
        trainer.fit(
            module_of(teacher_folder),
            data_of(latents_folder),
            ckpt_path=tmp_path / "checkpoints" / "last.ckpt",
            weights_only=True,
        )


def test_half_precision_skips_by_itself(teacher_folder, tmp_path):
    """Where a scaler looks for what is not finite, it is not counted."""
    trainer, module = trainer_of(tmp_path), module_of(teacher_folder)
    trainer.strategy.precision_plugin.scaler = object()
    optimizer = torch.optim.SGD(module.student.parameters(), lr=1.0)
    for parameter in module.student.parameters():
        parameter.grad = torch.full_like(parameter, float("inf"))
    guard = BadUpdates(most=1)
    guard.on_before_optimizer_step(trainer, module, optimizer)
    assert guard.state_dict()["skipped"] == 0


@pytest.mark.parametrize("settings", [{"most": 0}, {"explosion": 1.0}])
def test_settings_that_make_no_sense(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        BadUpdates(**settings)
