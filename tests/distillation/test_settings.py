"""Settings that would train nothing, or nothing of use, are refused before the training."""

import functools
import math

import pytest
import torch
from ladder import Watch, data_of, module_of, trainer_of

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.schedule import CosineSchedule, TableSchedule, scaled_linear
from bsa_lightning.diffusion.weighting import BSA, SNR, MinSNR, Tango, TruncatedSNR, Uniform, Weighting, check_weights
from bsa_lightning.distillation.denoising import Denoising
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.training.bad_updates import BadUpdates

NAN, INF = math.nan, math.inf


class Odd(Weighting):
    name = "odd"

    def __init__(self, value):
        self.value = value

    def __call__(self, snr):
        return torch.full_like(snr, self.value)


def adam(**settings):
    return functools.partial(torch.optim.Adam, **settings)


@pytest.mark.parametrize("kind", [module_of, lambda folder, **settings: Denoising(str(folder), **settings)])
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        *(({"ema_decay": value}, f"ema_decay is {value}, but") for value in (0.0, 1.0, -0.5, NAN, INF)),
        *(({"seed": value}, f"seed is {value}, but") for value in (-1, 2**63)),
        *(({"optimizer": adam(lr=lr)}, "the learning rate of optimizer is") for lr in (0.0, INF)),
        *(({"optimizer": adam(lr=lr)}, "optimizer cannot be made") for lr in (-1.0, NAN)),
        ({"optimizer": adam(lr=1e-3, weight_decay=INF)}, "weight_decay of optimizer is inf"),
        ({"optimizer": adam(lr=1e-3, eps=INF)}, "eps of optimizer is inf"),
    ],
)
def test_numbers_outside_their_range(teacher_folder, kind, settings, text):
    with pytest.raises(UserError, match=text):
        kind(teacher_folder, **settings)


@pytest.mark.parametrize(
    "make",
    [
        *(functools.partial(kind, scale) for kind in (Baked, Outside, Embedded) for scale in (NAN, INF, -1.0, 1e30)),
        *(functools.partial(Embedded, 2.0, low=low) for low in (NAN, -1.0, -INF)),
        functools.partial(Embedded, 2.0, high=INF),
        *(functools.partial(Outside, 2.0, caption_dropout=share) for share in (2, -1, NAN)),
        *(functools.partial(Denoising, caption_dropout=share) for share in (2, -1, NAN)),
        *(functools.partial(kind, gamma) for kind in (BSA, MinSNR, Tango) for gamma in (NAN, INF, 0.0, -5.0)),
        *(functools.partial(BadUpdates, explosion=value) for value in (NAN, INF, 1.0)),
        functools.partial(BadUpdates, most=0),
        *(functools.partial(Plan, *steps, updates=1) for steps in ((0, 1), (8, -1), (8.0, 4), (8, True))),
        *(functools.partial(Plan, 8, 4, updates=updates) for updates in (0, -1, [0], True, 1.5, NAN, None)),
        *(functools.partial(Plan, 8, 4, updates=3, **{name: 0}) for name in ("factor", "patience", "most_updates")),
    ],
)
def test_numbers_of_parts_outside_their_range(make):
    with pytest.raises(UserError, match="but must be"):
        make()


def test_a_round_without_any_weight_is_refused():
    with pytest.raises(UserError, match="min-snr is 0 at all times in the round of 1 steps"):
        Plan(8, 1, updates=2).check_weighting(MinSNR(), CosineSchedule())


def test_times_without_weight_are_said(caplog):
    Plan(8, 2, updates=2).check_weighting(SNR(), CosineSchedule())
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"the weighting snr is 0 at t = [1.0] in the round of {n} steps: nothing is learnt there" for n in (4, 2)
    ]


@pytest.mark.parametrize("weighting", [BSA(), TruncatedSNR(), Uniform(), Tango(), Odd(1.1e-8)])
def test_weightings_that_never_vanish_pass_in_silence(caplog, weighting):
    Plan(8, 1, updates=2).check_weighting(weighting, CosineSchedule())
    assert not caplog.records


def test_tangos_own_schedule_has_signal_everywhere(caplog):
    table = scaled_linear(beta_start=0.0015, beta_end=0.0195, num_timesteps=1000)
    Plan(200, 25, updates=2).check_weighting(MinSNR(), TableSchedule(table))
    assert not caplog.records


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((value, "odd gives") for value in (NAN, -1.0, INF, 1e39)),  # the last is infinite in float32
        *((value, "0 at all") for value in (0.9e-8, 1e-60)),
    ],
)
def test_a_weighting_of_ones_own_is_tried(value, text):
    with pytest.raises(UserError, match=text):
        check_weights(Odd(value), CosineSchedule(), torch.tensor([0.5, 1.0]), where="here")


def test_both_modules_try_their_weighting(teacher_folder):
    makers = (lambda: module_of(teacher_folder, weighting=Odd(0.0)), lambda: Denoising(str(teacher_folder), Odd(0.0)))
    for make in makers:
        with pytest.raises(UserError, match="the weighting odd is 0 at all times"):
            make()


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_weights_stay_in_float32(teacher_folder, latents_folder, tmp_path, precision):
    with pytest.raises(UserError, match=f"trainer.precision is {precision}, but trained weights are kept in"):
        trainer_of(tmp_path, precision=precision).fit(module_of(teacher_folder), data_of(latents_folder))


def test_a_student_that_is_not_finite_is_never_written(teacher_folder, latents_folder, tmp_path):
    def spoil(trainer, module, _batch):
        next(module.student.parameters()).data.view(-1)[0] = INF

    module = module_of(teacher_folder, plan=Plan(8, 4, 1))
    with pytest.raises(UserError, match="training has made weights that are not finite, such as "):
        trainer_of(tmp_path, Watch(spoil)).fit(module, data_of(latents_folder))
    assert not list(tmp_path.glob("rounds/*"))


@pytest.mark.parametrize("settings", [{"gradient_clip_val": 1e-30}, {}])
def test_a_round_that_moves_no_number_is_not_handed_on(teacher_folder, latents_folder, tmp_path, settings):
    """Gradients cut to nothing; a rate below what float32 can add."""
    optimizer = functools.partial(torch.optim.SGD, lr=1e-3 if settings else 1e-30)
    module = module_of(teacher_folder, plan=Plan(8, 4, 2), optimizer=optimizer)
    with pytest.raises(UserError, match="training has changed no weight, so that nothing is written"):
        trainer_of(tmp_path, **settings).fit(module, data_of(latents_folder))
    assert not list(tmp_path.glob("rounds/*"))


def test_a_round_of_skipped_updates_alone_ends_the_run(teacher_folder, latents_folder, tmp_path):
    def spoil(trainer, module, _batch):
        next(module.teacher.parameters()).data.fill_(INF)

    module = module_of(teacher_folder, plan=Plan(8, 4, 3))
    spoil(None, module, None)
    with (
        pytest.raises(UserError, match="3 updates had no usable gradient in round 1"),
        pytest.warns(match="is skipped"),
    ):
        trainer_of(tmp_path).fit(module, data_of(latents_folder))
