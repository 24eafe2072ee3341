import math
import re

import pytest
import torch
from gaussian import noise
from tolerances import IDENTITY

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.flow import FlowSchedule, Identity
from bsa_lightning.diffusion.losses import Errors, squared_error
from bsa_lightning.diffusion.process import Eps, V, Velocity, add_noise
from bsa_lightning.diffusion.schedule import CosineSchedule
from bsa_lightning.diffusion.weighting import (
    BSA,
    SNR,
    FlowBSA,
    MinSNR,
    OwnWeighting,
    SNRPlusOne,
    Tango,
    TruncatedSNR,
    Uniform,
    VelocityMSE,
    Weighting,
    plain_weighting,
)

SNRS = torch.tensor([0.0047, 0.5, 1.0, 4.0, 5.0, 5.1, 1175.0], dtype=torch.float64)


def sigma_of(snr):
    """sigma of a rectified flow, whose SNR is ((1 - sigma) / sigma)^2."""
    return 1 / (1 + snr**0.5)


FORMULAS = [
    (Uniform(), lambda s: 1.0),
    (SNR(), lambda s: s),
    (TruncatedSNR(), lambda s: max(s, 1)),
    (SNRPlusOne(), lambda s: s + 1),
    (VelocityMSE(), lambda s: (1 + s**0.5) ** 2),
    (MinSNR(5), lambda s: min(s, 5)),
    (BSA(5), lambda s: min(s + 1, 5)),
    (BSA(20), lambda s: min(s + 1, 20)),
    (FlowBSA(5), lambda s: min(1 / sigma_of(s) ** 2, 5)),
    (Tango(5), lambda s: min(s, 5) / s * (s + 1)),
]
weightings = pytest.mark.parametrize("weighting", [weighting for weighting, _ in FORMULAS], ids=lambda w: w.name)


def test_the_cap_of_the_papers_is_5_and_another_cap_is_another_name():
    assert [kind().gamma for kind in (BSA, FlowBSA, MinSNR, Tango)] == [5.0] * 4
    assert [FlowBSA().name, FlowBSA(20).name] == ["flow-bsa", "flow-bsa-gamma20"]
    assert [BSA().name, BSA(20).name, MinSNR(0.5).name] == ["bsa", "bsa-gamma20", "min-snr-gamma0.5"]


@pytest.mark.parametrize(("weighting", "formula"), FORMULAS, ids=lambda item: getattr(item, "name", ""))
def test_formula(weighting: Weighting, formula):
    expected = torch.tensor([formula(snr) for snr in SNRS.tolist()], dtype=torch.float64)
    torch.testing.assert_close(weighting(SNRS), expected, **IDENTITY)


def log_snr(snr):
    return torch.log1p(snr)


def two(snr):
    return 2.0


def of_another_shape(snr):
    return snr.sum()


def bsa(snr):
    return snr


def test_a_function_of_ones_own():
    own = OwnWeighting(log_snr)
    assert torch.equal(own(SNRS), torch.log1p(SNRS))
    torch.testing.assert_close(own.in_v(SNRS), torch.log1p(SNRS) / (SNRS + 1), **IDENTITY)
    assert (own.name, OwnWeighting(log_snr, "mine").name) == ("log-snr", "mine")
    assert own.parameters == {"function": f"{__name__}.log_snr"}


def test_a_student_records_the_settings_of_its_weighting():
    assert (MinSNR(3).parameters, Uniform().parameters) == ({"gamma": 3}, {})


@pytest.mark.parametrize(
    ("function", "name", "message"),
    [
        (lambda snr: snr, None, "<lambda>, which has no import path that a run could record; define it by `def`"),
        (torch.log1p, None, "which has no import path"),
        (bsa, None, 'name is "bsa", which is the name of BSA in scores and reports; choose another one'),
        (log_snr, "snr-with-floor", 'name is "snr-with-floor", in which "-with-" would begin the name of a sampler'),
        (log_snr, "by-hand", 'name is "by-hand", in which "-by-" would'),
        (log_snr, "a/b", 'name is "a/b", but must be of letters'),
        (log_snr, "", 'name is "", but must be of letters'),
    ],
)
def test_a_function_that_could_not_be_recorded_is_refused(function, name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        OwnWeighting(function, name)


@pytest.mark.parametrize(("function", "found"), [(two, "2.0"), (of_another_shape, "a tensor of ()")])
def test_a_function_must_give_a_weight_for_each_snr(function, found):
    with pytest.raises(
        UserError, match=re.escape(f"{function.__name__} gives {found} for SNR of the shape (7,); have")
    ):
        OwnWeighting(function)(SNRS)


def loss(x, target, weight):
    return Errors(weight, squared_error(x, target), weight).loss()


VARIANCE_PRESERVING = {"alpha": (SNRS / (1 + SNRS)).sqrt(), "sigma": (1 / (1 + SNRS)).sqrt()}
FLOW = {"alpha": 1 - sigma_of(SNRS), "sigma": sigma_of(SNRS)}


@weightings
@pytest.mark.parametrize(
    ("scales", "space", "weight_there"),
    [
        (VARIANCE_PRESERVING, Eps(), Weighting.in_eps),
        (VARIANCE_PRESERVING, V(), Weighting.in_v),
        (FLOW, Eps(), Weighting.in_eps),
        (FLOW, Velocity(), Weighting.in_u),
    ],
    ids=["eps", "v", "eps of a flow", "u"],
)
def test_the_loss_is_the_same_in_every_space(weighting, scales, space, weight_there):
    alpha, sigma = scales["alpha"], scales["sigma"]
    x, eps = noise(len(SNRS), 6), noise(len(SNRS), 6, seed=1)
    z_t = add_noise(x=x, eps=eps, **scales)
    student_x = x + noise(len(SNRS), 6, seed=2)
    student_eps = (z_t - alpha[:, None] * student_x) / sigma[:, None]
    in_x = loss(student_x, x, weighting(SNRS))
    ours, truth = (space.output(x=a, eps=b, **scales) for a, b in ((student_x, student_eps), (x, eps)))
    torch.testing.assert_close(loss(ours, truth, weight_there(weighting, SNRS)), in_x, **IDENTITY)


def test_plain_is_one_in_the_space_of_the_network():
    torch.testing.assert_close(plain_weighting(CosineSchedule()).in_v(SNRS), torch.ones_like(SNRS), **IDENTITY)
    torch.testing.assert_close(plain_weighting(FlowSchedule(Identity())).in_u(SNRS), torch.ones_like(SNRS), **IDENTITY)


@pytest.mark.parametrize(
    ("weighting", "at_zero", "at_infinity"),
    [
        (Uniform(), 1, 1),
        (SNR(), 0, math.inf),
        (TruncatedSNR(), 1, math.inf),
        (SNRPlusOne(), 1, math.inf),
        (VelocityMSE(), 1, math.inf),
        (MinSNR(5), 0, 5),
        (BSA(5), 1, 5),
        (FlowBSA(5), 1, 5),
        (Tango(5), 1, 5),
    ],
    ids=lambda item: getattr(item, "name", str(item)),
)
def test_limits(weighting, at_zero, at_infinity):
    assert weighting(torch.tensor([0.0, math.inf])).tolist() == [at_zero, at_infinity]


@pytest.mark.parametrize("weighting", [MinSNR, BSA, FlowBSA, Tango])
def test_a_cap_must_be_positive(weighting):
    with pytest.raises(UserError, match="gamma is 0"):
        weighting(0)


def test_loss_is_float32_whatever_comes_in():
    x = torch.ones(2, 3, dtype=torch.bfloat16)
    assert loss(x, x + 1, torch.ones(2)).dtype == torch.float32


@pytest.mark.parametrize("channels", [(3,), (3, 2), (3, 2, 4)])
def test_the_error_of_a_clip_is_a_mean_over_all_of_its_numbers(channels):
    x, target = noise(2, *channels), noise(2, *channels, seed=1)
    expected = [sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) / pair.shape[1]
                for pair in torch.stack([x.flatten(1), target.flatten(1)], 1)]  # fmt: skip
    torch.testing.assert_close(squared_error(x, target), torch.stack(expected), **IDENTITY)


def test_a_difference_of_bfloat16_latents_is_taken_in_float32():
    """0.1 and 0.1 + 2^-12 are one number in bfloat16; of two that are none, neither side is rounded."""
    x, target = torch.full((1, 4), 1.0, dtype=torch.bfloat16), torch.full((1, 4), 1.001)
    for one, other in ((x, target), (target, x)):
        torch.testing.assert_close(squared_error(one, other), torch.tensor([1e-6]), rtol=1e-3, atol=0)
    large, small = torch.full((1, 1), 256.0, dtype=torch.bfloat16), torch.full((1, 1), 1.0, dtype=torch.bfloat16)
    assert squared_error(large, small) == 255.0**2
    assert squared_error(large.float(), small.double()).dtype == torch.float32  # as the student is held
