"""Rectified flows: their warps, and that everything written for diffusion holds on them as it stands."""

import math
import re

import pytest
import torch
from gaussian import FLOWS, GaussianTeacher, noise
from tolerances import FLOAT32, IDENTITY

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.ddim import ddim_step, sample
from bsa_lightning.diffusion.flow import FlowSchedule, Identity, LogitNormalTimes, LogSNR, Shift, Warp
from bsa_lightning.diffusion.losses import denoising_loss, distillation_target, mix_coefficient
from bsa_lightning.diffusion.process import V, Velocity, add_noise, expand
from bsa_lightning.diffusion.schedule import CosineSchedule, TableSchedule, trailing_grid
from bsa_lightning.diffusion.weighting import VelocityMSE

flows = pytest.mark.parametrize("schedule", FLOWS.values(), ids=FLOWS)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@flows
def test_goes_from_data_to_noise(schedule):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha, sigma = schedule.alpha_sigma(t, dtype=torch.float64)
    torch.testing.assert_close(alpha + sigma, torch.ones_like(t), **IDENTITY)
    assert (sigma.diff() > 0).all()
    assert (sigma[0], sigma[-1], schedule.snr(t)[-1]) == (0, 1, 0)
    torch.testing.assert_close(schedule.snr(t)[1:], ((1 - sigma[1:]) / sigma[1:]) ** 2, **IDENTITY)
    assert schedule.most_steps == math.inf
    assert schedule.has_exact_grid(7)


def test_sigmas_are_those_of_the_published_samplers():
    """From the table of TangoFlux's and Stable Audio 3's own samplers at eight steps."""
    stable_audio = tensor(1, 0.99438, 0.98448, 0.95791, 0.89090, 0.74555, 0.51250, 0.27389, 0)
    torch.testing.assert_close(LogSNR()(trailing_grid(8)), stable_audio, rtol=0, atol=1e-5)
    assert Identity()(trailing_grid(8)).tolist() == [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]


def test_a_shift_is_that_of_diffusers():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    scheduler.set_timesteps(sigmas=trailing_grid(8)[:-1].tolist())
    torch.testing.assert_close(Shift(3.0)(trailing_grid(8)).float(), scheduler.sigmas, **FLOAT32)


def test_every_shift_ends_where_it_should():
    for hundredths in range(1, 1000):
        assert FlowSchedule(Shift(hundredths / 100)).warp(torch.ones(1, dtype=torch.float64)) == 1


def test_ends_that_rounding_has_moved_do_not_leap():
    assert LogSNR()(tensor(1e-17, 1 - 1e-16)).tolist() == [0, 1]
    assert LogSNR()(tensor(1e-6)).item() == pytest.approx(1 / (1 + math.e**2), rel=1e-4)


@flows
def test_a_ddim_step_is_an_euler_step_of_the_velocity(schedule):
    teacher, z = GaussianTeacher(schedule), noise(3, 4)
    t, s = tensor(0.9, 0.5, 0.2), tensor(0.7, 0.3, 0.0)
    prediction = teacher(z, t)
    (_, sigma_t), (alpha_s, sigma_s) = (schedule.alpha_sigma(time, dtype=torch.float64) for time in (t, s))
    u = Velocity().output(**prediction._asdict(), alpha=1 - sigma_t, sigma=sigma_t)
    torch.testing.assert_close(u, prediction.eps - prediction.x, **IDENTITY)
    z_s = ddim_step(prediction=prediction, alpha_s=alpha_s, sigma_s=sigma_s)
    torch.testing.assert_close(z_s, z + expand(sigma_s - sigma_t, z) * u, **IDENTITY)


@flows
def test_the_target_is_the_mean_velocity(schedule):
    teacher, z_t = GaussianTeacher(schedule), noise(3, 4)
    times = tensor(1.0, 0.5, 0.25), tensor(0.875, 0.375, 0.125), tensor(0.75, 0.25, 0.0)
    sigma_t, sigma_mid, sigma_s = (expand(schedule.alpha_sigma(t, dtype=torch.float64)[1], z_t) for t in times)
    first = teacher(z_t, times[0])
    u1 = first.eps - first.x
    second = teacher(z_t + (sigma_mid - sigma_t) * u1, times[1])
    u2 = second.eps - second.x
    mean = ((sigma_t - sigma_mid) * u1 + (sigma_mid - sigma_s) * u2) / (sigma_t - sigma_s)
    x = distillation_target(teacher=teacher, schedule=schedule, z_t=z_t, times=times)
    torch.testing.assert_close(x, z_t - sigma_t * mean, **IDENTITY)


def test_coefficients_of_four_steps():
    """lam from the last step to the first, as sigma_t (sigma_mid - sigma_s) / (sigma_mid (sigma_t - sigma_s))."""
    i = torch.arange(1, 5, dtype=torch.float64)
    times = {"t": i / 4, "mid": (i - 0.5) / 4, "s": (i - 1) / 4}
    lam = mix_coefficient(schedule=FlowSchedule(Identity()), **times)
    torch.testing.assert_close(lam, tensor(1, 2 / 3, 3 / 5, 4 / 7), **IDENTITY)
    lam = mix_coefficient(schedule=FlowSchedule(LogSNR()), **times)
    torch.testing.assert_close(lam, tensor(1, 0.736, 0.736, 0.641), rtol=0, atol=5e-4)


def test_many_steps_of_the_exact_teacher_reach_its_distribution():
    teacher = GaussianTeacher(FlowSchedule(Identity()), mean=0.7, std=1.6)
    final = sample(denoise=teacher, schedule=teacher.schedule, noise=noise(1000, 1), num_steps=2000)
    torch.testing.assert_close(final, 0.7 + 1.6 * noise(1000, 1), rtol=0, atol=1e-2)


@flows
def test_parametrizations_refuse_schedules_that_they_do_not_hold_for(schedule):
    Velocity().check_schedule(schedule)
    V().check_schedule(CosineSchedule())
    with pytest.raises(UserError, match="predicts v, but FlowSchedule is not variance preserving"):
        V().check_schedule(schedule)
    with pytest.raises(UserError, match=r"predicts the velocity .* CosineSchedule is not that of a rectified flow"):
        Velocity().check_schedule(CosineSchedule())


class Line(Warp):
    def __init__(self, start, end):
        self.start, self.end = start, end

    def __call__(self, t):
        return self.start + (self.end - self.start) * t


class Wave(Warp):
    def __call__(self, t):
        return t + 0.5 * torch.sin(2 * math.pi * t) * (t < 1)


class Flat(Warp):
    def __call__(self, t):
        return torch.where(t < 0.5, t, torch.where(t < 0.6, 0.5, t))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlowSchedule(Flat()), "the warp Flat does not rise everywhere"),
        (lambda: FlowSchedule(Line(0.1, 1.0)), "the warp Line goes from 0.1 at t = 0 to 1 at t = 1, but must go"),
        (lambda: FlowSchedule(Line(0.0, 0.998)), "the warp Line goes from 0 at t = 0 to 0.998 at t = 1, but must"),
        (lambda: FlowSchedule(Wave()), "the warp Wave does not rise everywhere"),
        (lambda: Shift(0.0), "shift is 0.0, but must be a finite number, above 0"),
        (lambda: LogSNR(2.0, -6.2), "high is -6.2, but must be a finite number, above 2"),
        (lambda: LogSNR(math.nan), "low is nan, but must be a finite number"),
        (lambda: LogitNormalTimes(0.0, 0.0), "std is 0.0, but must be a finite number, above 0"),
        (lambda: LogitNormalTimes(math.inf), "mean is inf, but must be a finite number"),
    ],
)
def test_warps_and_times_that_cannot_be(make, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make()


def test_times_are_float64_whatever_the_numbers_are_held_in():
    uniform = torch.tensor([0.25, 0.75])
    for times in (FlowSchedule(Identity()).trained_times, LogitNormalTimes()):
        assert torch.equal(times(uniform), times(uniform.double()))
        assert times(uniform).dtype == torch.float64


def test_logit_normal_times_are_standard_unless_told():
    assert (LogitNormalTimes().mean, LogitNormalTimes().std) == (0, 1)


def test_logit_normal_times_have_its_quantiles():
    """sigmoid(mean + std n) at n = -1, 0, 1; numbers that are uniform fall from noise to data."""
    normal = torch.distributions.Normal(tensor(0.0), tensor(1.0))
    uniform = 1 - normal.cdf(tensor(-1.0, 0.0, 1.0))
    expected = torch.sigmoid(tensor(0.3 - 2, 0.3, 0.3 + 2))
    torch.testing.assert_close(LogitNormalTimes(0.3, 2.0)(uniform), expected, **IDENTITY)
    ends = LogitNormalTimes()(tensor(0.0, math.nextafter(1, 0)))
    assert ends[0] == 1
    assert 0 < ends[1] < 1e-3


def test_a_teacher_is_trained_at_the_times_that_it_is_given():
    schedule, uniform, x, eps = FlowSchedule(Identity()), tensor(0.1, 0.4, 0.9), noise(3, 4), noise(3, 4, seed=1)
    seen = []

    def network(z_t, t):
        seen.append((z_t, t))
        return GaussianTeacher(schedule)(z_t, t)

    settings = {"x": x, "eps": eps, "uniform": uniform, "schedule": schedule, "network": network}
    errors = denoising_loss(**settings, weighting=VelocityMSE(), times=LogitNormalTimes())
    denoising_loss(**settings, weighting=VelocityMSE())
    (z_t, t), (_, uniform_t) = seen
    assert torch.equal(t, LogitNormalTimes()(uniform))
    assert torch.equal(uniform_t, 1 - uniform)
    torch.testing.assert_close(z_t, add_noise(x=x, eps=eps, alpha=1 - t, sigma=t), **IDENTITY)
    u = Velocity().output(**GaussianTeacher(schedule)(z_t, t)._asdict(), alpha=1 - t, sigma=t)
    torch.testing.assert_close(errors.loss(), (u - (eps - x)).square().mean(), **IDENTITY)


def test_times_of_a_table_are_the_trained_ones_nearest_to_those_asked_for():
    schedule = TableSchedule(torch.linspace(0.99, 0.1, 8, dtype=torch.float64))
    uniform = tensor(0.999999, 0.6, 0.3, 0.0)
    seen = []

    def network(z_t, t):
        seen.append(t)
        return GaussianTeacher(schedule)(z_t, t)

    settings = {"x": noise(4, 4), "eps": noise(4, 4, seed=1), "uniform": uniform, "schedule": schedule}
    errors = denoising_loss(**settings, network=network, weighting=VelocityMSE(), times=LogitNormalTimes())
    asked = LogitNormalTimes()(uniform)
    assert asked[0] < 1 / 16  # nearest to clean, at which nothing is trained
    expected = tensor(1, *(8 * asked[1:]).round()) / 8
    torch.testing.assert_close(seen[0], expected, **IDENTITY)
    torch.testing.assert_close(errors.snr, schedule.snr(seen[0]), **IDENTITY)
