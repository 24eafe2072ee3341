import torch
from ladder import data_of, module_of, trainer_of

from bsa_lightning.distillation.rounds import Plan


def test_no_gradient_of_one_round_reaches_the_next(teacher_folder, latents_folder, tmp_path, monkeypatch):
    """Validated after every batch, two of which are one update: within an accumulation nothing is judged."""
    module, told = module_of(teacher_folder, plan=Plan(8, 2, 12, patience=1)), []
    promote = module.promote

    def watched(folder):
        told.append((module.updates_in_round, sum(p.grad is not None for p in module.student.parameters())))
        promote(folder)

    monkeypatch.setattr(module, "promote", watched)
    module.clip_errors.compute = lambda: torch.ones(3, dtype=torch.float64)
    trainer = trainer_of(
        tmp_path, accumulate_grad_batches=2, limit_val_batches=1, val_check_interval=1, check_val_every_n_epoch=None
    )
    trainer.fit(module, data_of(latents_folder))
    # The validation after the first update is the best one; the second begins the cooldown of two updates.
    assert told == [(4, 0)]
    assert module.global_step == 8
