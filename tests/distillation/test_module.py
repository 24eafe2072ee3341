import json
import shutil

import pytest
import torch
from gaussian import COND, NULL, Gaussian, noise
from ladder import Watch, data_of, module_of, trainer_of
from tolerances import FLOAT32, IDENTITY

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.datamodule import LatentBatch
from bsa_lightning.diffusion import weighting
from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.distillation.draws import draw
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.base import Posterior
from bsa_lightning.models.loading import folder_sha256, load_denoiser, load_parts
from bsa_lightning.models.predictor import predictor
from bsa_lightning.training.latent_module import NetworkOptions


def weights(network):
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])


@pytest.fixture(scope="module")
def ladder(teacher_folder, latents_folder, tmp_path_factory):
    """A finished run, with what was seen on the way."""
    run = tmp_path_factory.mktemp("run")
    seen = []

    def look(trainer, module, _batch):
        optimizer = trainer.optimizers[0]
        steps = {int(state["step"]) for state in optimizer.state.values()}
        seen.append({
            "round": module.round,
            "teacher": weights(module.teacher),
            "lr": optimizer.param_groups[0]["lr"],
            "adam": steps,
            "training": (module.teacher.training, module.student.training),
        })  # fmt: skip

    module = module_of(teacher_folder, ema_decay=0.5)
    trainer_of(run, Watch(look)).fit(module, data_of(latents_folder))
    return run, module, seen


def test_rounds_follow_the_plan_and_training_stops(ladder):
    run, module, seen = ladder
    assert [entry["round"] for entry in seen] == [0] * 4 + [1] * 4
    assert sorted(path.name for path in (run / "rounds").iterdir()) == ["1-4steps", "2-2steps"]
    assert torch.equal(weights(load_denoiser(run / "rounds" / "2-2steps")), weights(module.ema.average))


def test_the_teacher_is_frozen_in_eval_mode_and_becomes_the_finished_student(ladder, teacher_folder):
    run, _, seen = ladder
    assert {entry["training"] for entry in seen} == {(False, True)}
    expected = [weights(load_denoiser(teacher_folder))] * 4 + [weights(load_denoiser(run / "rounds" / "1-4steps"))] * 4
    assert all(torch.equal(entry["teacher"], teacher) for entry, teacher in zip(seen, expected, strict=True))


def test_the_optimizer_starts_afresh_and_its_rate_falls_to_zero_in_each_round(ladder):
    _, _, seen = ladder
    assert [entry["adam"] for entry in seen] == [{1}, {2}, {3}, {4}] * 2
    assert [entry["lr"] for entry in seen] == pytest.approx([0.75e-3, 0.5e-3, 0.25e-3, 0] * 2)


def test_only_the_student_is_optimized(ladder):
    _, module, _ = ladder
    assert not any(parameter.requires_grad for parameter in [*module.teacher.parameters(), *module.ema.parameters()])
    ours = {id(p) for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]}
    assert ours == {id(parameter) for parameter in module.student.parameters()}


def test_provenance(ladder, teacher_folder):
    run, _, _ = ladder
    provenance = json.loads((run / "rounds" / "2-2steps" / "provenance.json").read_text())
    expected = {"weighting": "bsa", "round": 2, "num_steps": 2, "guidance": "baked", "guidance_scale": 2.0}
    assert expected.items() <= provenance.items()
    assert provenance["teacher"] == str(teacher_folder.resolve())
    assert load_parts(run / "rounds" / "2-2steps").sampling.num_steps == 2


def test_a_student_whose_bytes_have_changed_is_refused(ladder, tmp_path):
    folder = shutil.copytree(ladder[0] / "rounds" / "2-2steps", tmp_path / "student")
    load_denoiser(folder)
    path = next(folder.glob("unet/*.safetensors"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="student is damaged or was changed"):
        load_denoiser(folder)


def test_checkpoints_refer_to_their_teacher(ladder):
    run, _, _ = ladder
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if name.startswith("teacher.")]
    assert checkpoint["teacher"]["student"] == "rounds/1-4steps"


def test_students_at_half_precision_teachers_stay_in_full(teacher_folder, latents_folder, tmp_path):
    settings = {"networks": NetworkOptions("bfloat16", gradient_checkpointing=True), "guidance": Embedded(2.0)}
    module = module_of(teacher_folder, **settings)
    trainer_of(tmp_path).fit(module, data_of(latents_folder))
    assert {parameter.dtype for parameter in module.teacher.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in module.student.parameters()} == {torch.float32}
    student = load_parts(tmp_path / "rounds" / "2-2steps")
    assert student.denoiser.takes_guidance
    assert (student.sampling.scale(), student.sampling.scale(5.0)) == (2.0, 5.0)


def test_gradient_checkpointing_changes_no_weight(teacher_folder, latents_folder, tmp_path):
    digests = []
    for checkpointing in (False, True):
        run = tmp_path / str(checkpointing)
        module = module_of(teacher_folder, networks=NetworkOptions(gradient_checkpointing=checkpointing))
        trainer_of(run).fit(module, data_of(latents_folder))
        digests.append(folder_sha256(run / "rounds" / "2-2steps"))
    assert digests[0] == digests[1]


WEIGHTINGS = [weighting.BSA(), weighting.MinSNR(), weighting.SNRPlusOne(), weighting.TruncatedSNR()]


def test_weightings_see_the_same_batches_times_and_noise(teacher_folder, latents_folder, tmp_path, monkeypatch):
    records = []
    for number, weight in enumerate(WEIGHTINGS):
        module, record = module_of(teacher_folder, weighting=weight, plan=Plan(8, 2, 2)), []
        original = module._errors_of

        def spy(student, batch, draws, conditioning, original=original, record=record):
            errors = original(student, batch, draws, conditioning)
            record.append((batch.index, draws, errors.snr))
            return errors

        monkeypatch.setattr(module, "_errors_of", spy)
        trainer_of(tmp_path / str(number), max_steps=3).fit(module, data_of(latents_folder))
        records.append(record)
    for other in records[1:]:
        for (index, draws, snr), (other_index, other_draws, other_snr) in zip(records[0], other, strict=True):
            assert torch.equal(index, other_index)
            assert torch.equal(snr, other_snr)
            torch.testing.assert_close(draws, other_draws, rtol=0, atol=0)


def test_draws_are_a_function_of_seed_step_micro_batch_and_rank():
    def eps(**numbers):
        return draw(**{"seed": 0, "step": 5, "micro_batch": 0, "rank": 0} | numbers, latents=torch.zeros(2, 3)).eps

    assert torch.equal(eps(), eps())
    assert len({eps(**{name: 9}) for name in ("seed", "step", "micro_batch", "rank")}) == 4


def test_caption_dropout_drops_about_its_share():
    kept = draw(seed=0, step=0, micro_batch=0, rank=0, latents=torch.zeros(4000, 1), caption_dropout=0.25).keep_caption
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("guidance", "num_calls"), [(Baked(2.0), [8, 8, 4]), (Embedded(2.0), [8, 8, 4]), (Outside(2.0), [4, 4, 4])]
)
def test_only_the_first_target_is_guided_outside(teacher_folder, latents_folder, tmp_path, guidance, num_calls):
    """Network evaluations are counted by a hook: two teacher steps, then the student."""
    module = module_of(teacher_folder, guidance=guidance, plan=Plan(8, 2, 1))
    sizes = {"teacher": [], "student": []}
    for name, network in (("teacher", module.teacher), ("student", module.student)):
        network.register_forward_hook(lambda _m, args, _o, name=name: sizes[name].append(len(args[0])))
    trainer_of(tmp_path).fit(module, data_of(latents_folder))
    assert sizes["teacher"][:2] + sizes["student"][:1] == num_calls
    assert sizes["teacher"][2:] == [4, 4]


def test_the_first_target_is_the_guided_two_step_result(teacher_folder, monkeypatch):
    """In float64, with a conditional Gaussian teacher: both steps guided, then the one step that lands there."""
    module, g = module_of(teacher_folder, guidance=Baked(3.0)), 3.0
    module.teacher = teacher = Gaussian(module.teacher.schedule)
    monkeypatch.setattr(module, "_null", lambda: NULL)
    batch = LatentBatch(torch.arange(3), Posterior(noise(3, 4, seed=1), torch.zeros(3, 4)), COND, [""] * 3)
    draws = draw(seed=0, step=0, micro_batch=0, rank=0, latents=batch.posterior.mean)
    draws = draws._replace(eps=draws.eps.double())
    errors = module._errors_of(teacher, batch, draws, COND)
    t = ((draws.uniform * 4).floor() + 1) / 4
    mid, s = t - 0.5 / 4, t - 1 / 4

    def guided(z, times):
        cond, uncond = teacher(z, times, COND), teacher(z, times, NULL.repeat(3))
        return Prediction(*(u + g * (c - u) for c, u in zip(cond, uncond, strict=True)))

    def at(times):
        return (value[:, None] for value in teacher.schedule.alpha_sigma(times, dtype=torch.float64))

    (alpha, sigma), (alpha_s, sigma_s), (alpha_mid, sigma_mid) = at(t), at(s.clamp(min=0)), at(mid)
    z_t = alpha * batch.posterior.mean + sigma * draws.eps
    first = guided(z_t, t)
    second = guided(alpha_mid * first.x + sigma_mid * first.eps, mid)
    z_s = alpha_s * second.x + sigma_s * second.eps
    ratio = sigma_s / sigma
    target = (z_s - ratio * z_t) / (alpha_s - ratio * alpha)
    expected = (target - teacher(z_t, t, COND).x).square().mean(1)
    torch.testing.assert_close(errors.error, expected, **IDENTITY)


def test_trajectory_error_is_the_distance_to_the_teacher_on_its_own_grid(teacher_folder, latents_folder, tmp_path):
    data, module = data_of(latents_folder), module_of(teacher_folder, guidance=Outside(2.0))
    metrics = trainer_of(tmp_path, limit_val_batches=1.0).validate(module, data, verbose=False)[0]
    batch, teacher = next(iter(data.val_dataloader())), load_denoiser(teacher_folder)
    noise = draw(seed=0, step=-1, micro_batch=0, rank=0, latents=batch.posterior.mean).eps
    denoise = predictor(teacher, batch.conditioning, null=data.null, guidance_scale=2.0)
    finals = [sample(denoise=denoise, schedule=teacher.schedule, noise=noise, num_steps=n) for n in (8, 4)]
    expected = (finals[0] - finals[1]).square().mean()
    torch.testing.assert_close(torch.tensor(metrics["val/trajectory_error"]), expected, **FLOAT32)
    assert metrics["val/distillation_error"] > 0


def test_latents_of_another_model_are_refused_before_training(latents_folder, tmp_path):
    from tiny_model import write_model

    module = module_of(write_model(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match="prepared with another"):
        trainer_of(tmp_path / "run").fit(module, data_of(latents_folder))
    assert not (tmp_path / "run" / "rounds").exists()


def test_other_data_is_compared_with_the_first_teachers_sound_of_that_data(teacher_folder, latents_folder, tmp_path):
    """A module used twice says what a new one says; by their numbers alone the second data's batches are known."""
    module = module_of(teacher_folder, guidance=Outside(2.0))

    def error(module, run, **settings):
        data = data_of(latents_folder, num_val_clips=4, **settings)
        return trainer_of(tmp_path / run, limit_val_batches=1.0).validate(module, data, verbose=False)[0]

    error(module, "first", batch_size=2)
    again, new = (error(m, "again", batch_size=4) for m in (module, module_of(teacher_folder, guidance=Outside(2.0))))
    assert again["val/trajectory_error"] == new["val/trajectory_error"]
