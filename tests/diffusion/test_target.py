import pytest
import torch
from gaussian import GaussianTeacher, noise
from tolerances import IDENTITY

from bsa_lightning.diffusion.process import Prediction, ddim_step, expand
from bsa_lightning.diffusion.sampling import sample
from bsa_lightning.diffusion.schedule import CosineSchedule, TableSchedule, scaled_linear
from bsa_lightning.diffusion.target import mix_coefficient, two_step_target

SCHEDULES = {
    "tango": TableSchedule(scaled_linear(beta_start=0.00085, beta_end=0.012, num_timesteps=1000)),
    "cosine": CosineSchedule(),
}
schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def student_steps(num_steps):
    """All steps (t, mid, s) of a student's grid."""
    i = torch.arange(1, num_steps + 1, dtype=torch.float64)
    return i / num_steps, (i - 0.5) / num_steps, (i - 1) / num_steps


def two_steps_then_invert(teacher, schedule, z_t, t, mid, s):
    """Salimans & Ho's form: two DDIM steps, then the x whose single step lands there."""
    double = {"dtype": torch.float64}
    z = ddim_step(prediction=teacher(z_t, t), **dict(zip(("alpha_s", "sigma_s"), schedule.alpha_sigma(mid, **double))))
    z = ddim_step(prediction=teacher(z, mid), **dict(zip(("alpha_s", "sigma_s"), schedule.alpha_sigma(s, **double))))
    alpha_t, sigma_t = (expand(value, z_t) for value in schedule.alpha_sigma(t, **double))
    alpha_s, sigma_s = (expand(value, z_t) for value in schedule.alpha_sigma(s, **double))
    ratio = sigma_s / sigma_t
    return (z - ratio * z_t) / (alpha_s - ratio * alpha_t)


@schedules
@pytest.mark.parametrize("num_steps", [1, 5, 25, 100])
def test_mix_equals_two_steps_then_invert(schedule, num_steps):
    t, mid, s = student_steps(num_steps)
    teacher, z_t = GaussianTeacher(schedule), noise(num_steps, 3, 2)
    ours = two_step_target(teacher=teacher, schedule=schedule, z_t=z_t, t=t, mid=mid, s=s)
    theirs = two_steps_then_invert(teacher, schedule, z_t, t, mid, s)
    torch.testing.assert_close(ours, theirs, **IDENTITY)


@schedules
@pytest.mark.parametrize("num_steps", [1, 5, 100])
def test_mix_is_convex_and_takes_the_second_prediction_at_the_end(schedule, num_steps):
    t, mid, s = student_steps(num_steps)
    lam = mix_coefficient(schedule=schedule, t=t, mid=mid, s=s)
    assert ((lam > 0) & (lam <= 1)).all()
    torch.testing.assert_close(lam[0], torch.ones_like(lam[0]), **IDENTITY)


@schedules
@pytest.mark.parametrize("num_steps", [2, 5, 20])
def test_ideal_student_samples_like_the_teacher_at_twice_the_steps(schedule, num_steps):
    teacher = GaussianTeacher(schedule)

    def student(z_t, t):
        mid, s = t - 0.5 / num_steps, t - 1 / num_steps
        x = two_step_target(teacher=teacher, schedule=schedule, z_t=z_t, t=t, mid=mid, s=s.clamp(min=0))
        alpha, sigma = (expand(value, z_t) for value in schedule.alpha_sigma(t, dtype=z_t.dtype))
        return Prediction(x, (z_t - alpha * x) / sigma)

    start = noise(4, 8)
    ours = sample(denoise=student, schedule=schedule, noise=start, num_steps=num_steps)
    theirs = sample(denoise=teacher, schedule=schedule, noise=start, num_steps=2 * num_steps)
    torch.testing.assert_close(ours, theirs, **IDENTITY)


def test_many_steps_of_the_exact_teacher_reach_its_distribution():
    """DDIM with the exact denoiser transports N(0, 1) linearly; with zero terminal SNR, onto N(mean, std^2)."""
    teacher = GaussianTeacher(CosineSchedule(), mean=0.7, std=1.6)
    final = sample(denoise=teacher, schedule=teacher.schedule, noise=noise(1000, 1), num_steps=2000)
    torch.testing.assert_close(final, 0.7 + 1.6 * noise(1000, 1), rtol=0, atol=1e-2)


def test_bf16_latents_survive_the_mix_but_not_the_division():
    """Latents that a half-precision sampler keeps in bf16: rms error of the target at the top of Tango's first round."""
    schedule = SCHEDULES["tango"]
    t, mid, s = (value[-1:].expand(4096) for value in student_steps(100))
    teacher, z_t = GaussianTeacher(schedule, mean=0.0, std=1.0), noise(4096, 1)

    def rounded(z, times):
        prediction = teacher(z, times)
        return Prediction(*(value.bfloat16().double() for value in prediction))

    truth = two_step_target(teacher=teacher, schedule=schedule, z_t=z_t, t=t, mid=mid, s=s)
    mix = two_step_target(teacher=rounded, schedule=schedule, z_t=z_t, t=t, mid=mid, s=s)
    z_mid = ddim_step(prediction=teacher(z_t, t), **dict(zip(("alpha_s", "sigma_s"), schedule.alpha_sigma(mid))))
    z_s = ddim_step(
        prediction=teacher(z_mid.bfloat16().double(), mid),
        **dict(zip(("alpha_s", "sigma_s"), schedule.alpha_sigma(s))),
    )
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (schedule.alpha_sigma(value, dtype=torch.float64) for value in (t, s))
    ratio = expand(sigma_s / sigma_t, z_t)
    textbook = (z_s.bfloat16().double() - ratio * z_t) / (expand(alpha_s, z_t) - ratio * expand(alpha_t, z_t))
    assert (mix - truth).square().mean().sqrt() < 0.01
    assert (textbook - truth).square().mean().sqrt() > 0.3
