import pytest
import torch
from gaussian import SCHEDULES, GaussianTeacher, noise
from tolerances import IDENTITY

from bsa_lightning.diffusion.ddim import ddim_step, sample
from bsa_lightning.diffusion.losses import distillation_target, mix_coefficient
from bsa_lightning.diffusion.process import Prediction, expand
from bsa_lightning.diffusion.schedule import CosineSchedule

schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def student_steps(num_steps):
    """All steps (t, mid, s) of a student's grid."""
    i = torch.arange(1, num_steps + 1, dtype=torch.float64)
    return i / num_steps, (i - 0.5) / num_steps, (i - 1) / num_steps


def step_to(prediction, schedule, s):
    alpha_s, sigma_s = schedule.alpha_sigma(s, dtype=torch.float64)
    return ddim_step(prediction=prediction, alpha_s=alpha_s, sigma_s=sigma_s)


def invert(schedule, z_t, z_s, t, s):
    """The x whose single DDIM step from z_t lands on z_s (Salimans & Ho's form)."""
    alpha_t, sigma_t = (expand(value, z_t) for value in schedule.alpha_sigma(t, dtype=torch.float64))
    alpha_s, sigma_s = (expand(value, z_t) for value in schedule.alpha_sigma(s, dtype=torch.float64))
    ratio = sigma_s / sigma_t
    return (z_s - ratio * z_t) / (alpha_s - ratio * alpha_t)


def two_steps_then_invert(teacher, schedule, z_t, t, mid, s):
    z_mid = step_to(teacher(z_t, t), schedule, mid)
    return invert(schedule, z_t, step_to(teacher(z_mid, mid), schedule, s), t, s)


@schedules
@pytest.mark.parametrize("num_steps", [1, 5, 25, 100])
def test_mix_equals_two_steps_then_invert(schedule, num_steps):
    t, mid, s = student_steps(num_steps)
    teacher, z_t = GaussianTeacher(schedule), noise(num_steps, 3, 2)
    ours = distillation_target(teacher=teacher, schedule=schedule, z_t=z_t, times=(t, mid, s))
    theirs = two_steps_then_invert(teacher, schedule, z_t, t, mid, s)
    torch.testing.assert_close(ours, theirs, **IDENTITY)


@schedules
@pytest.mark.parametrize("num_steps", [1, 5, 100])
def test_mix_is_convex_and_takes_the_second_prediction_at_the_end(schedule, num_steps):
    t, mid, s = student_steps(num_steps)
    lam = mix_coefficient(schedule=schedule, t=t, mid=mid, s=s)
    assert ((lam > 0) & (lam <= 1)).all()
    torch.testing.assert_close(lam[0], torch.ones_like(lam[0]), **IDENTITY)
    assert mix_coefficient(schedule=schedule, t=t.float(), mid=mid.float(), s=s.float()).dtype == torch.float64


@schedules
@pytest.mark.parametrize(("num_steps", "factor"), [(2, 2), (5, 2), (20, 2), (5, 3), (4, 16), (1, 50)])
def test_ideal_student_samples_like_the_teacher_at_so_many_times_the_steps(schedule, num_steps, factor):
    teacher = GaussianTeacher(schedule)

    def student(z_t, t):
        times = [(t - k / factor / num_steps).clamp(min=0) for k in range(factor + 1)]
        x = distillation_target(teacher=teacher, schedule=schedule, z_t=z_t, times=times)
        alpha, sigma = (expand(value, z_t) for value in schedule.alpha_sigma(t, dtype=z_t.dtype))
        return Prediction(x, (z_t - alpha * x) / sigma)

    start = noise(4, 8)
    ours = sample(denoise=student, schedule=schedule, noise=start, num_steps=num_steps)
    theirs = sample(denoise=teacher, schedule=schedule, noise=start, num_steps=factor * num_steps)
    torch.testing.assert_close(ours, theirs, **IDENTITY)


def test_many_steps_of_the_exact_teacher_reach_its_distribution():
    """DDIM with the exact denoiser transports N(0, 1) linearly; with zero terminal SNR, onto N(mean, std^2)."""
    teacher = GaussianTeacher(CosineSchedule(), mean=0.7, std=1.6)
    final = sample(denoise=teacher, schedule=teacher.schedule, noise=noise(1000, 1), num_steps=2000)
    torch.testing.assert_close(final, 0.7 + 1.6 * noise(1000, 1), rtol=0, atol=1e-2)


def test_bf16_latents_survive_the_mix_but_not_the_division():
    """Latents kept in bf16, as a half-precision sampler does, at the top of Tango's first round."""
    schedule = SCHEDULES["tango"]
    t, mid, s = (value[-1:].expand(4096) for value in student_steps(100))
    teacher, z_t = GaussianTeacher(schedule, mean=0.0, std=1.0), noise(4096, 1)

    def rounded(z, times):
        return Prediction(*(value.bfloat16().double() for value in teacher(z, times)))

    truth = distillation_target(teacher=teacher, schedule=schedule, z_t=z_t, times=(t, mid, s))
    mix = distillation_target(teacher=rounded, schedule=schedule, z_t=z_t, times=(t, mid, s))
    z_mid = step_to(teacher(z_t, t), schedule, mid).bfloat16().double()
    z_s = step_to(teacher(z_mid, mid), schedule, s).bfloat16().double()
    assert (mix - truth).square().mean().sqrt() < 0.01
    assert (invert(schedule, z_t, z_s, t, s) - truth).square().mean().sqrt() > 0.3
