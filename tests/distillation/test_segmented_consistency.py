"""Runs of segmented consistency: the draws of any other method, one teacher for all rounds, and exact resume."""

import functools

import pytest
import torch
from ladder import StopAt, Watch, data_of, module_of, trainer_of

from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation import module as module_file
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.distillation.methods import Progressive, SegmentedConsistency
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import load_denoiser, read_provenance


def segmented(teacher_folder, **settings):
    return module_of(teacher_folder, **{"method": SegmentedConsistency(), "ema_decay": 0.5} | settings)


def weights(network):
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def students(run):
    files = sorted((run / "rounds").rglob("*.safetensors"))
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def test_all_methods_see_the_same_draws(teacher_folder, latents_folder, tmp_path, monkeypatch):
    """Latents, noise, uniform numbers, captions that are dropped, and the seed of all else, over two rounds."""
    seen, original = {}, module_file.distillation_loss
    for method in (Progressive(), SegmentedConsistency()):
        told = seen.setdefault(method.name, [])

        def loss(told=told, **parts):
            told.append([parts["x"], parts["eps"], parts["uniform"], torch.default_generator.get_state()])
            return original(**parts)

        module = segmented(teacher_folder, method=method, guidance=Outside(2.0, caption_dropout=0.5), seed=5)
        bound = method.predictors

        def predictors(*networks, told=told, bound=bound, **captions):
            told.append(list(captions["conditioning"].tensors.values()))
            return bound(*networks, **captions)

        method.predictors = predictors
        monkeypatch.setattr(module_file, "distillation_loss", loss)
        trainer_of(tmp_path / method.name).fit(module, data_of(latents_folder))
    ours, theirs = seen.values()
    assert len(ours) == len(theirs) == 2 * 8
    for one, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "guidance",
    [Embedded(2.0), *(pytest.param(mode, marks=pytest.mark.slow) for mode in (Baked(2.0), Outside(2.0)))],
    ids=lambda mode: mode.name,
)
def test_the_teacher_stays_and_the_average_starts_the_next_round(teacher_folder, latents_folder, tmp_path, guidance):
    module, scales, at_end = segmented(teacher_folder, guidance=guidance), [], {}
    target_scale = guidance.target_scale

    def asked(round_index, uniform):
        scales.append(round_index)
        return target_scale(round_index, uniform)

    guidance.target_scale = asked
    promote = module.promote

    def watched(folder):
        at_end["average"] = weights(module.ema.average)
        promote(folder)
        at_end["student"], at_end["kept"] = weights(module.student), weights(module.ema.average)

    module.promote = watched
    modes = []
    watch = Watch(lambda _t, m, _b: modes.append((m.student.training, m.ema.average.training, m.teacher.training)))
    trainer_of(tmp_path, watch).fit(module, data_of(latents_folder))
    assert same(at_end["student"], at_end["average"])
    assert same(at_end["kept"], at_end["average"])
    assert same(weights(module.teacher), weights(load_denoiser(teacher_folder)))
    assert set(scales) == {0}
    assert set(modes) == {(True, False, False)}
    saved = tmp_path / "rounds" / "2-2steps"
    assert same(weights(load_denoiser(saved)), weights(module.ema.average))
    assert read_provenance(saved)["method"] == "segmented-consistency"


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4, 5])
def test_interrupted_and_resumed_equals_uninterrupted(teacher_folder, latents_folder, tmp_path, step):
    """In a round, at its end, and in the next."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer_of(whole).fit(segmented(teacher_folder), data_of(latents_folder))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer_of(parts, StopAt(step)).fit(segmented(teacher_folder), data_of(latents_folder))
    last = parts / "checkpoints" / "last.ckpt"
    trainer_of(parts).fit(segmented(teacher_folder), data_of(latents_folder), ckpt_path=last, weights_only=True)
    assert students(parts) == students(whole)
    assert list(students(whole)) == [
        f"rounds/{name}/unet/diffusion_pytorch_model.safetensors" for name in ("1-4steps", "2-2steps")
    ]


def test_a_round_ends_early_by_its_trajectory_error(teacher_folder, latents_folder, tmp_path):
    """Validated every second update: the error does not fall after the first, and two updates cool the round down."""
    module = segmented(teacher_folder, plan=Plan(8, 4, 12, patience=1))
    module.clip_errors.compute = lambda: torch.ones(3, dtype=torch.float64)
    validated = {"limit_val_batches": 1, "val_check_interval": 2, "check_val_every_n_epoch": None}
    trainer_of(tmp_path, **validated).fit(module, data_of(latents_folder))
    assert module.global_step == 6


def test_a_later_round_that_changes_nothing_is_refused(teacher_folder, latents_folder, tmp_path):
    """It is compared with the student before it, not with the teacher, from which the first round came away."""
    module = segmented(teacher_folder)
    promote = module.promote

    def still(folder):
        module.optimizer = functools.partial(torch.optim.SGD, lr=0.0)
        promote(folder)

    module.promote = still
    with pytest.raises(UserError, match="training has changed no weight"):
        trainer_of(tmp_path).fit(module, data_of(latents_folder))


def test_no_average_is_refused(teacher_folder):
    with pytest.raises(UserError, match="ema_decay is None, but the target of SegmentedConsistency"):
        segmented(teacher_folder, ema_decay=None)


def test_a_weighting_is_tried_at_all_times_of_the_method(teacher_folder, monkeypatch):
    """One that has no weight at t = 1 trains the other times of one segment, but no progressive round of one step."""
    seen = []
    monkeypatch.setattr(
        "bsa_lightning.distillation.rounds.check_weights", lambda _w, _s, times, where: seen.append(times.tolist())
    )
    for method in (Progressive(), SegmentedConsistency()):
        segmented(teacher_folder, method=method, plan=Plan(4, 1, 1))
    assert seen == [[1, 0.5], [1], [1, 0.75, 0.5, 0.25], [1, 0.75, 0.5, 0.25]]
