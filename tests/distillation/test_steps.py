"""What a module does in a step, in a validation and with a checkpoint, called one by one and without a fit."""

import json
import shutil

import pytest
import torch
from ladder import data_of, module_of
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from tiny_model import write_model

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.diffusion.losses import distillation_loss
from bsa_lightning.diffusion.weighting import BSA, Weighting
from bsa_lightning.distillation.draws import draw
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import folder_sha256
from bsa_lightning.models.predictor import predictor
from bsa_lightning.training.latent_module import NetworkOptions


@pytest.fixture
def attached(teacher_folder, latents_folder):
    """A module with a trainer that accumulates two batches, one batch, and a list of what is logged."""

    def make(**settings):
        module, data, told = module_of(teacher_folder, **settings), data_of(latents_folder), []
        data.setup("fit")
        module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, accumulate_grad_batches=2)
        module.trainer.datamodule = data
        module.log = lambda name, value, **options: told.append((name, value, options))
        module.log_dict = lambda values, **options: told.extend((*item, options) for item in values.items())
        return module, next(iter(data.train_dataloader())), told

    return make


def expected_errors(module, batch, draws, conditioning, *, scale=1.0):
    """Algorithm 1 in the first round of 8 to 4 steps, by hand."""
    return distillation_loss(
        x=batch.posterior.sample(draws.posterior_noise),
        eps=draws.eps,
        uniform=draws.uniform,
        num_steps=4,
        schedule=module.teacher.schedule,
        teacher=predictor(module.teacher, conditioning, null=module.data.null, guidance_scale=scale),
        student=predictor(module.student, conditioning),
        weighting=BSA(),
    )


def test_a_training_step_is_algorithm_1_on_the_draws_of_its_seed_step_and_micro_batch(attached):
    module, batch, told = attached(guidance=Outside(2.0, caption_dropout=0.5), seed=3)
    draws = draw(seed=3, step=0, micro_batch=1, rank=0, latents=batch.posterior.mean, caption_dropout=0.5)
    assert 0 < int(draws.keep_caption.sum()) < len(draws.keep_caption)
    loss = module.training_step(batch, 5)  # the second of the third update
    assert torch.initial_seed() == draws.seed
    conditioning = batch.conditioning.where(draws.keep_caption, module.data.null.repeat(len(batch.conditioning)))
    assert torch.equal(loss, expected_errors(module, batch, draws, conditioning).loss())
    assert told == [("train/loss", loss, {"prog_bar": True}), ("round", 1.0, {}), ("num_steps", 4.0, {})]
    assert all(isinstance(value, torch.Tensor) and value.device.type == "cpu" for _, value, _ in told[1:])


def test_a_validation_step_is_algorithm_1_on_draws_of_its_own_with_all_captions(attached):
    module, batch, told = attached(guidance=Baked(2.0))
    module.validation_step(batch, 1)
    assert module._first._teacher is not None
    module.on_validation_end()
    assert module._first._teacher is None
    module.on_validation_epoch_end()
    draws = draw(seed=0, step=-1, micro_batch=1, rank=0, latents=batch.posterior.mean)
    with torch.no_grad():
        errors = expected_errors(module, batch, draws, batch.conditioning, scale=2.0)
        denoisers = [
            predictor(module.teacher, batch.conditioning, null=module.data.null, guidance_scale=2.0),
            predictor(module.student, batch.conditioning),
        ]
        first, final = (
            sample(denoise=denoise, schedule=module.teacher.schedule, noise=draws.eps, num_steps=num_steps)
            for denoise, num_steps in zip(denoisers, (8, 4), strict=True)
        )
    found = {name: (value, options) for name, value, options in told}
    assert told[0] == ("val/num_steps", 4.0, {"batch_size": 1})
    assert type(told[0][1]) is float
    torch.testing.assert_close(found["val/distillation_error"][0], errors.loss())
    torch.testing.assert_close(found["val/trajectory_error"][0], (final - first).square().mean())
    assert {tuple(options.items()) for _, _, options in told[1:]} == {(("batch_size", 1), ("sync_dist", True))}


def test_the_rate_falls_to_zero_over_a_round_and_not_below(attached):
    module, _, _ = attached()
    found = module.configure_optimizers()["lr_scheduler"]
    assert found["interval"] == "step"
    assert [found["scheduler"].lr_lambdas[0](step) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_a_module_says_where_it_is(attached):
    module, _, _ = attached()
    assert (module.place, module.is_last_round, module.current_budget) == ("in round 1", False, 4)
    module.round += 1
    module.round_start = -3
    assert (module.place, module.is_last_round, module.current_round.num_steps) == ("in round 2", True, 2)
    assert module.updates_in_round == 3
    assert [type(value) for value in (module.is_last_round, module.updates_in_round)] == [bool, int]
    assert module.seed == 0


def test_the_teacher_stays_in_eval_mode_and_frozen(attached):
    module, _, _ = attached(ema_decay=0.5)

    def modes(network):
        return {part.training for part in network.modules()}

    assert (modes(module.student), modes(module.teacher)) == ({True}, {False})
    for mode in (False, True):
        assert module.train(mode) is module
        assert (modes(module.student), modes(module.teacher)) == ({mode}, {False})
    assert modes(module.train().student) == {True}
    first = module._load_first_teacher()
    for network in (module.teacher, first):
        assert modes(network) == {False}
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in module.student.parameters())


def test_a_student_is_made_as_its_guidance_needs_it(teacher_folder):
    module = module_of(teacher_folder, guidance=Embedded(2.0))
    assert (module.student.takes_guidance, module.teacher.takes_guidance) == (True, False)


class Nothing(Weighting):
    name = "nothing"

    def __call__(self, snr):
        return torch.zeros_like(snr)


def test_what_cannot_be_trained_is_refused_before_any_step(attached, teacher_folder, tmp_path):
    """Steps that do not divide the 64 of the teacher, weights of nothing, a guided teacher, other latents."""
    student = shutil.copytree(teacher_folder, tmp_path / "student")
    (student / "provenance.json").write_text(json.dumps({"guidance": "baked", "guidance_scale": 2.0, "num_steps": 8}))
    for settings, text in (
        ({"teacher": str(student)}, "a student with guidance baked in, which cannot be guided by 2"),
        ({"plan": Plan(6, 3, 1)}, "student of 3 steps"),
        ({"weighting": Nothing()}, "nothing is 0 at all"),
    ):
        with pytest.raises(UserError, match=text):
            module_of(teacher_folder, **settings)
    module, _, _ = attached()
    told = []
    module.check_data = lambda: told.append("data")
    module.setup("fit")
    assert told == ["data"]


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_a_promotion_hands_on_the_average_and_begins_the_next_round(attached, teacher_folder, tmp_path, monkeypatch):
    """The student's folder is here any other one; what it holds is told apart by its digest."""
    module, _, _ = attached(ema_decay=0.5)
    module.setup("fit")
    first, told = folder_sha256(teacher_folder), []
    module.trainer._default_root_dir = str(tmp_path)
    folder = write_model(tmp_path / "rounds" / "1-4steps", seed=1)
    monkeypatch.setattr("bsa_lightning.distillation.rounds_module.restart_optimizers", told.append)
    module.guidance.prepare = told.append
    for network, shift in ((module.student, 1.0), (module.ema.average, 2.0)):
        for parameter in network.parameters():
            parameter.data.add_(shift)
    average = weights(module.ema.average)
    module.round_start = -5
    module.promote(folder)
    for network in (module.teacher, module.student, module.ema.average):
        assert all(torch.equal(one, other) for one, other in zip(weights(network), average, strict=True))
    assert (module.round, module.round_start, module.updates_in_round) == (1, module.global_step, 0)
    checkpoint = {"state_dict": {}}
    module.on_save_checkpoint(checkpoint)
    digest = folder_sha256(folder)
    assert checkpoint["teacher"] == {"first_sha256": first, "student": "rounds/1-4steps", "sha256": digest}
    assert type(checkpoint["teacher"]["student"]) is str
    assert told == [module.teacher, module.trainer]


def checkpoint_of(module, step):
    checkpoint = {"state_dict": module.state_dict(), "global_step": step}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def test_a_checkpoint_brings_the_first_teacher_back(attached, teacher_folder):
    module, _, _ = attached(networks=NetworkOptions("bfloat16"))
    module.setup("fit")
    checkpoint = checkpoint_of(module, 7)
    digest = folder_sha256(teacher_folder)
    assert checkpoint["teacher"] == {"first_sha256": digest, "student": None, "sha256": digest}
    assert not any(name.startswith("teacher.") for name in checkpoint["state_dict"])
    other, _, _ = attached(networks=NetworkOptions("bfloat16"))
    for parameter in other.teacher.parameters():
        parameter.data.zero_()
    other.on_load_checkpoint(checkpoint)
    assert other._resumed_at == 7
    assert not other.teacher.training
    for name, tensor in module.teacher.state_dict().items():
        assert torch.equal(other.teacher.state_dict()[name], tensor)
        assert torch.equal(checkpoint["state_dict"][f"teacher.{name}"], tensor)
    assert not any(parameter.requires_grad for parameter in other.teacher.parameters())
    assert {parameter.dtype for parameter in other.teacher.parameters()} == {torch.bfloat16}


def test_other_clips_than_the_checkpoints_are_refused_in_training_alone(attached):
    module, _, _ = attached()
    module.setup("fit")
    checkpoint = checkpoint_of(module, 7) | {"clips": "others"}
    module.trainer.state.fn = TrainerFn.VALIDATING
    module.on_load_checkpoint(dict(checkpoint))
    module.trainer.state.fn = TrainerFn.FITTING
    with pytest.raises(UserError, match="which holds other clips than the run was trained on"):
        module.on_load_checkpoint(dict(checkpoint))


def test_only_a_student_that_was_written_by_the_very_updates_of_the_checkpoint_is_left(attached, tmp_path):
    module, _, _ = attached()
    module.trainer._default_root_dir = str(tmp_path)
    written = []
    module.refuse_broken = lambda network: written.append(network)
    module.refuse_unchanged = lambda network, before: written.append(before)
    folder = tmp_path / "rounds" / "1-4steps"
    module._resumed_at = 0
    assert module.finish_round() == folder  # nothing was there
    assert (folder / "provenance.json").exists()
    assert written == [module.student, module.teacher]
    module.finish_round()
    assert len(written) == 2
    module._resumed_at = 5
    module.finish_round()
    assert len(written) == 4
    module.teacher_dtype = torch.bfloat16
    module.finish_round()
    assert written[-1] is None  # a rounded teacher differs from its student in any case
