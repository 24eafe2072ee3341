"""The loss of Algorithm 1 against the paper's own lines, written out for one clip at a time in float64."""

import pytest
import torch
from gaussian import SCHEDULES, GaussianTeacher, noise
from tolerances import IDENTITY

from bsa_lightning.diffusion.losses import (
    Errors,
    denoising_loss,
    distillation_loss,
    distillation_target,
    halving_times,
)
from bsa_lightning.diffusion.schedule import CosineSchedule
from bsa_lightning.diffusion.weighting import (
    BSA,
    SNR,
    FlowBSA,
    MinSNR,
    SNRPlusOne,
    Tango,
    TruncatedSNR,
    Uniform,
    VelocityMSE,
)

schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
FORMULAS = [
    (Uniform(), lambda snr: 1.0),
    (SNR(), lambda snr: snr),
    (TruncatedSNR(), lambda snr: max(snr, 1)),
    (SNRPlusOne(), lambda snr: snr + 1),
    (MinSNR(5), lambda snr: min(snr, 5)),
    (BSA(5), lambda snr: min(snr + 1, 5)),
    (VelocityMSE(), lambda snr: (1 + snr**0.5) ** 2),
    (FlowBSA(5), lambda snr: min((1 + snr**0.5) ** 2, 5)),
    (Tango(5), lambda snr: min(snr, 5) / snr * (snr + 1) if snr else 1.0),
]
NUM_STEPS = 10
UNIFORM = torch.tensor([0.0, 0.35, 0.55, 0.999], dtype=torch.float64)
"""Draws of i = 1, where the step ends in the clean latent, 4, 6 and 10, where it begins in pure noise."""
CLEAN, NOISE = noise(4, 3, 2, seed=1), noise(4, 3, 2, seed=2)


def drawn(schedule, teacher, student, weighting, factor):
    return distillation_loss(
        x=CLEAN, eps=NOISE, uniform=UNIFORM, num_steps=NUM_STEPS, factor=factor, schedule=schedule, teacher=teacher,
        student=student, weighting=weighting,
    )  # fmt: skip


def line_by_line(schedule, teacher, student, weight, factor, clip):
    """The weighted error of one clip: DDIM steps as the paper prints them, and the inverse of one step."""

    def scales(k):
        t = (int(UNIFORM[clip] * NUM_STEPS) + 1 - k / factor) / NUM_STEPS
        alpha, sigma = schedule.alpha_sigma(torch.tensor(t, dtype=torch.float64), dtype=torch.float64)
        return torch.full((1,), t, dtype=torch.float64), alpha, sigma

    t, alpha_t, sigma_t = scales(0)
    z_t = z = alpha_t * CLEAN[clip : clip + 1] + sigma_t * NOISE[clip : clip + 1]
    for k in range(factor):
        time, alpha, sigma = scales(k)
        _, alpha_next, sigma_next = scales(k + 1)
        x = teacher(z, time).x
        z = alpha_next * x + (sigma_next / sigma) * (z - alpha * x)
    _, alpha_s, sigma_s = scales(factor)
    target = (z - sigma_s / sigma_t * z_t) / (alpha_s - sigma_s / sigma_t * alpha_t)
    error = (target.detach() - student(z_t, t).x).square().mean()
    return weight(float((alpha_t / sigma_t) ** 2)) * error


@schedules
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize(("weighting", "weight"), FORMULAS, ids=lambda item: getattr(item, "name", ""))
def test_is_algorithm_1(schedule, weighting, weight, factor):
    teacher, student = GaussianTeacher(schedule), GaussianTeacher(schedule, mean=-0.4, std=0.9)
    errors = drawn(schedule, teacher, student, weighting, factor)
    expected = [line_by_line(schedule, teacher, student, weight, factor, clip) for clip in range(len(CLEAN))]
    torch.testing.assert_close(errors.weight * errors.error, torch.stack(expected), **IDENTITY)
    torch.testing.assert_close(errors.loss(), torch.stack(expected).mean(), **IDENTITY)


def test_a_step_of_the_student_is_two_of_the_teacher_where_nothing_else_is_said():
    schedule = CosineSchedule()
    teacher, student = GaussianTeacher(schedule), GaussianTeacher(schedule, mean=-0.4, std=0.9)
    errors = distillation_loss(
        x=CLEAN, eps=NOISE, uniform=UNIFORM, num_steps=NUM_STEPS, schedule=schedule, teacher=teacher, student=student,
        weighting=BSA(),
    )  # fmt: skip
    assert torch.equal(errors.error, drawn(schedule, teacher, student, BSA(), 2).error)


@schedules
def test_the_gradient_is_of_the_student_alone(schedule):
    """Student and teacher are one network, as where a student starts: the target is still a constant."""
    mean = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    network = GaussianTeacher(schedule, mean=mean)
    drawn(schedule, network, network, BSA(), 2).loss().backward()
    found, mean.grad = mean.grad, None
    torch.stack([line_by_line(schedule, network, network, FORMULAS[5][1], 2, i) for i in range(4)]).mean().backward()
    torch.testing.assert_close(found, mean.grad, **IDENTITY)
    other = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    drawn(schedule, GaussianTeacher(schedule, mean=other), network, BSA(), 2).loss().backward()
    assert other.grad is None


@pytest.mark.parametrize("factor", [2, 4])
def test_the_times_of_a_step_are_one_more_than_the_teachers_steps(factor):
    times = halving_times(UNIFORM, schedule=CosineSchedule(), num_steps=NUM_STEPS, factor=factor)
    i = torch.tensor([1, 4, 6, 10], dtype=torch.float64)
    assert len(times) == factor + 1
    for k, time in enumerate(times):
        torch.testing.assert_close(time, (i - k / factor) / NUM_STEPS, **IDENTITY)


@schedules
def test_a_teacher_is_trained_by_equation_1(schedule):
    """With w = SNR, the squared error in the noise, at the times that the schedule trains at."""
    network = GaussianTeacher(schedule, mean=-0.4, std=0.9)
    uniform = torch.tensor([0.0014, 0.35, 0.55, 0.9], dtype=torch.float64)
    errors = denoising_loss(x=CLEAN, eps=NOISE, uniform=uniform, schedule=schedule, network=network, weighting=SNR())
    t = schedule.trained_times(uniform)
    alpha, sigma = (values[:, None, None] for values in schedule.alpha_sigma(t, dtype=torch.float64))
    expected = (network(alpha * CLEAN + sigma * NOISE, t).eps - NOISE).square().mean()
    torch.testing.assert_close(errors.loss(), expected, **IDENTITY)
    assert torch.equal(errors.snr, schedule.snr(t))
    other = denoising_loss(x=CLEAN, eps=NOISE, uniform=uniform, schedule=schedule, network=network, weighting=BSA(4))
    assert torch.equal(other.weight, (errors.snr + 1).clamp(max=4))


def test_clips_that_only_fill_a_batch_do_not_count():
    errors = Errors(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1e6, 4.0]), torch.ones(3))
    assert errors.loss(torch.tensor([True, False, True])) == 7.0


def test_the_error_is_in_the_precision_of_the_latents_and_at_least_float32():
    """Weights are of float64 in every case, and do not decide it; a teacher may be in bfloat16."""
    schedule = CosineSchedule()
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32)):
        errors = distillation_loss(
            x=CLEAN.to(dtype), eps=NOISE.to(dtype), uniform=UNIFORM, num_steps=NUM_STEPS, schedule=schedule,
            teacher=GaussianTeacher(schedule), student=GaussianTeacher(schedule, mean=-0.4), weighting=BSA(),
        )  # fmt: skip
        assert (errors.error.dtype, errors.weight.dtype, errors.loss().dtype) == (expected, torch.float64, expected)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_target_costs_one_evaluation_a_step_of_the_teacher_and_keeps_the_precision(factor):
    schedule, seen = CosineSchedule(), []

    def teacher(z, t):
        seen.append((z.dtype, float(t[0])))
        return GaussianTeacher(schedule)(z, t)

    times = [torch.full((4,), 1 - k / factor / 2, dtype=torch.float64) for k in range(factor + 1)]
    target = distillation_target(teacher=teacher, schedule=schedule, z_t=NOISE.float(), times=times)
    assert seen == [(torch.float32, float(t[0])) for t in times[:-1]]
    assert target.dtype == torch.float32
