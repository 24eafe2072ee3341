"""The training of a teacher, step by step and without a fit."""

import shutil

import pytest
import torch
from ladder import data_of
from lightning.pytorch import Trainer

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.losses import denoising_loss
from bsa_lightning.diffusion.weighting import BSA, SNRPlusOne
from bsa_lightning.distillation import denoising
from bsa_lightning.distillation.denoising import Denoising
from bsa_lightning.distillation.draws import draw
from bsa_lightning.models import provenance
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.loading import load_denoiser
from bsa_lightning.models.predictor import predictor


@pytest.fixture
def attached(teacher_folder, latents_folder):
    """A module with a trainer that accumulates two batches, one batch, and a list of what is logged."""

    def make(**settings):
        module, data, told = Denoising(str(teacher_folder), **settings), data_of(latents_folder), []
        data.setup("fit")
        module.trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, accumulate_grad_batches=2, max_steps=10
        )
        module.trainer.datamodule = data
        module.log = lambda name, value, **options: told.append((name, value, options))
        return module, next(iter(data.train_dataloader())), told

    return make


def expected_loss(module, network, batch, draws, conditioning, weighting):
    return denoising_loss(
        x=batch.posterior.sample(draws.posterior_noise),
        eps=draws.eps,
        uniform=draws.uniform,
        schedule=network.schedule,
        network=predictor(network, conditioning),
        weighting=weighting,
    ).loss()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_training_step_is_equation_1_on_the_draws_of_its_seed_step_and_micro_batch(attached, share):
    module, batch, told = attached(caption_dropout=share, seed=3, weighting=BSA())
    draws = draw(seed=3, step=0, micro_batch=1, rank=0, latents=batch.posterior.mean, caption_dropout=share)
    loss = module.training_step(batch, 5)
    assert torch.initial_seed() == draws.seed
    conditioning = batch.conditioning
    if share:
        assert 0 < int(draws.keep_caption.sum()) < len(draws.keep_caption)
        conditioning = conditioning.where(draws.keep_caption, module.data.null.repeat(len(conditioning)))
    assert torch.equal(loss, expected_loss(module, module.network, batch, draws, conditioning, BSA()))
    assert told == [("train/loss", loss, {"prog_bar": True})]


@pytest.mark.parametrize("decay", [None, 0.5])
def test_a_validation_is_of_what_is_saved_on_draws_of_its_own_with_all_captions(attached, decay):
    module, batch, told = attached(ema_decay=decay, caption_dropout=0.5)
    for parameter in module.network.parameters():
        parameter.data.add_(0.01)
    module.validation_step(batch, 1)
    module.on_validation_epoch_end()
    draws = draw(seed=0, step=-1, micro_batch=1, rank=0, latents=batch.posterior.mean)
    network = module.network if decay is None else module.ema.average
    assert module.trained is network
    assert module.networks == [module.network, network]
    with torch.no_grad():
        expected = expected_loss(module, network, batch, draws, batch.conditioning, SNRPlusOne())
    ((name, value, options),) = told
    torch.testing.assert_close(value, expected)
    assert (name, options) == ("val/loss", {"prog_bar": True, "batch_size": 1, "sync_dist": True})


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_rate_rises_over_the_warmup_and_falls_to_zero_over_the_fit(attached, warmup):
    module, _, _ = attached(warmup=warmup)
    type(module.trainer).estimated_stepping_batches, original = 10, Trainer.estimated_stepping_batches
    try:
        found = module.configure_optimizers()
    finally:
        Trainer.estimated_stepping_batches = original
    assert found["lr_scheduler"]["interval"] == "step"
    rate = found["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [rate(step) for step in range(13)] == pytest.approx(
        [min(1, (step + 1) / (warmup + 1)) * max(0, 1 - step / 10) for step in range(13)]
    )
    ours = {id(p) for group in found["optimizer"].param_groups for p in group["params"]}
    assert ours == {id(parameter) for parameter in module.network.parameters()}


def test_what_is_taken_where_nothing_else_is_said(attached):
    module, _, _ = attached()
    assert (module.warmup, module.ema.decay, module.caption_dropout, module.seed) == (0, 0.999, 0.1, 0)
    assert (module.compiled, type(module.weighting)) == (False, SNRPlusOne)
    assert {part.training for part in module.network.modules()} == {True}


def test_a_weighting_is_tried_at_a_hundred_times_of_the_whole_schedule(teacher_folder, monkeypatch):
    seen = []
    monkeypatch.setattr(denoising, "check_weights", lambda *words, where: seen.append((words, where)))
    module = Denoising(str(teacher_folder))
    ((weighting, schedule, times), where) = seen[0]
    assert (weighting, schedule, where) == (module.weighting, module.network.schedule, "of the schedule")
    torch.testing.assert_close(times, schedule.trained_times(torch.arange(100, dtype=torch.float64) / 100))


@pytest.mark.parametrize("linked", ["start", "target"])
def test_a_model_is_not_written_over_itself_by_another_name(teacher_folder, tmp_path, linked):
    (tmp_path / "link").symlink_to(teacher_folder)
    start, target = (tmp_path / "link", teacher_folder)[:: 1 if linked == "start" else -1]
    with pytest.raises(UserError, match="is the model that training started from"):
        Denoising(str(start)).save_model(target)


@pytest.mark.parametrize("warmup", [-1, 1.5])
def test_a_warmup_is_a_whole_number_of_updates(teacher_folder, warmup):
    with pytest.raises(UserError, match=f"warmup is {warmup}"):
        Denoising(str(teacher_folder), warmup=warmup)


def test_a_fit_begins_with_a_look_at_the_data_and_the_starting_folder(attached):
    module, _, _ = attached()
    told = []
    module.check_data = lambda: told.append("data")
    module._check_start = lambda: told.append("start")
    module.setup("fit")
    assert told == ["data", "start"]


def test_a_network_in_parts_is_put_together_before_it_is_written(attached, monkeypatch, tmp_path):
    module, _, _ = attached()
    asked = []

    def unsharded(network, make, *, keep):
        asked.append((network is module.trained, keep))
        together = make()
        assert isinstance(together, Denoiser)
        for parameter in together.parameters():
            parameter.data.fill_(0.5)
        return together

    monkeypatch.setattr("bsa_lightning.distillation.denoising.unsharded", unsharded)
    module.save_model(tmp_path / "model")
    assert asked == [(True, True)]
    assert all(bool((parameter == 0.5).all()) for parameter in load_denoiser(tmp_path / "model").parameters())


def test_a_network_that_is_not_finite_is_not_written(attached, tmp_path):
    module, _, _ = attached()
    next(module.trained.parameters()).data.fill_(torch.nan)
    with pytest.raises(UserError, match="weights that are not finite"):
        module.save_model(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_starting_folder_that_has_changed_is_not_passed_on(attached, teacher_folder, tmp_path):
    start = shutil.copytree(teacher_folder, tmp_path / "start")
    provenance.write(start, provenance.read(start))
    module, _, _ = attached()
    module.teacher_name = str(start)
    module.save_model(tmp_path / "first")
    (start / "vae" / "config.json").write_text((start / "vae" / "config.json").read_text() + "\n")
    for refused in (lambda: module.save_model(tmp_path / "second"), module._check_start):
        with pytest.raises(UserError, match=r"vae/config\.json"):
            refused()
    assert not (tmp_path / "second").exists()
