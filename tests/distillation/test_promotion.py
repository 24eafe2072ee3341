import pytest
import torch
from ladder import Watch, data_of, module_of, trainer_of

from bsa_lightning.distillation.rounds import Plan


@pytest.mark.parametrize(("errors", "ends"), [([3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0, 1.0], 8), ([3.0, 2.0, 1.0], 12)])
def test_a_round_ends_when_its_validation_error_has_stopped_falling(
    teacher_folder, latents_folder, tmp_path, monkeypatch, errors, ends
):
    """Validated every second update, with a patience of two validations and a budget of 12 updates."""
    module, rounds = module_of(teacher_folder, plan=Plan(8, 4, 12, patience=2)), []
    told = iter([*errors, *[0.9 - 0.1 * i for i in range(12)]])

    def tell():
        module.log("val/distillation_error", torch.tensor(next(told)))

    monkeypatch.setattr(module, "on_validation_epoch_end", tell)
    trainer = trainer_of(
        tmp_path,
        Watch(lambda _t, m, _b: rounds.append(m.global_step)),
        limit_val_batches=1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
    )
    trainer.fit(module, data_of(latents_folder))
    assert rounds == list(range(1, ends + 1))
    assert (tmp_path / "rounds" / "1-4steps" / "unet").is_dir()


def test_no_gradient_of_one_round_reaches_the_next(teacher_folder, latents_folder, tmp_path, monkeypatch):
    """Validated after every batch, two of which are one update: the error without an update says nothing new."""
    module, told = module_of(teacher_folder, plan=Plan(8, 2, 12, patience=1)), []
    promote = module.promote

    def watched(folder):
        told.append((module.updates_in_round, sum(p.grad is not None for p in module.student.parameters())))
        promote(folder)

    monkeypatch.setattr(module, "promote", watched)
    monkeypatch.setattr(module, "on_validation_epoch_end", lambda: module.log("val/distillation_error", torch.ones(())))
    trainer = trainer_of(
        tmp_path, accumulate_grad_batches=2, limit_val_batches=1, val_check_interval=1, check_val_every_n_epoch=None
    )
    trainer.fit(module, data_of(latents_folder))
    # The first validation is the best one, before any update; the second, after one update, ends the round.
    assert told == [(1, 0)]
    assert module.global_step == 3  # likewise in the second round, whose first update is validated first
