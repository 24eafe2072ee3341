"""The methods of distillation with a Gaussian teacher in float64, whose ideal students are known in closed form."""

import pytest
import torch
from gaussian import COND, NULL, SCHEDULES, Gaussian, GaussianTeacher, noise
from tolerances import IDENTITY

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.ddim import ddim_step, sample
from bsa_lightning.diffusion.losses import distillation_loss
from bsa_lightning.diffusion.process import Prediction, expand
from bsa_lightning.diffusion.schedule import CosineSchedule
from bsa_lightning.diffusion.weighting import BSA
from bsa_lightning.distillation.methods import Progressive, SegmentedConsistency
from bsa_lightning.distillation.rounds import Plan

schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
METHODS = (Progressive(), SegmentedConsistency())
methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
UNIFORM = torch.linspace(0, 1, 42, dtype=torch.float64)[:-1]


class Ideal:
    """The student whose one step from a time of the teacher's grid ends where the teacher ends that segment.

    It walks the teacher's grid, clip by clip, and solves the one step for its x as Salimans and Ho write it.
    """

    def __init__(self, teacher, *, num_steps, factor):
        self.teacher, self.schedule = teacher, teacher.schedule
        self.num_steps, self.factor = num_steps, factor

    def x(self, z_t, time):
        def scales(k):
            return self.schedule.alpha_sigma(torch.tensor(k / finer, dtype=torch.float64), dtype=torch.float64)

        finer = self.num_steps * self.factor
        start = round(float(time) * finer)
        end = (start - 1) // self.factor * self.factor
        z = z_t
        for k in range(start, end, -1):
            prediction = self.teacher(z, torch.full((1,), k / finer, dtype=torch.float64))
            alpha, sigma = scales(k - 1)
            z = ddim_step(prediction=prediction, alpha_s=alpha, sigma_s=sigma)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(start), scales(end)
        return (z - sigma_s / sigma_t * z_t) / (alpha_s - sigma_s / sigma_t * alpha_t)

    def __call__(self, z_t, t):
        x = torch.cat([self.x(z_t[i : i + 1], t[i]) for i in range(len(t))])
        alpha, sigma = (expand(value, z_t) for value in self.schedule.alpha_sigma(t, dtype=z_t.dtype))
        return Prediction(x, (z_t - alpha * x) / sigma)


def errors_of(method, teacher, student, *, num_steps, factor, average=None):
    first, second = method.target_predictors(teacher=teacher, average=student if average is None else average)
    return distillation_loss(
        x=noise(len(UNIFORM), 3, seed=1), eps=noise(len(UNIFORM), 3, seed=2), uniform=UNIFORM, num_steps=num_steps,
        factor=factor, schedule=teacher.schedule, teacher=first, second=second, student=student, weighting=BSA(),
        step_times=method.step_times,
    )  # fmt: skip


@schedules
@methods
@pytest.mark.parametrize(("num_steps", "factor"), [(4, 2), (2, 5), (1, 8)])
def test_the_ideal_student_is_a_fixed_point(schedule, method, num_steps, factor):
    teacher = GaussianTeacher(schedule)
    errors = errors_of(
        method, teacher, Ideal(teacher, num_steps=num_steps, factor=factor), num_steps=num_steps, factor=factor
    )
    torch.testing.assert_close(errors.error, torch.zeros_like(errors.error), **IDENTITY)


@schedules
@methods
def test_another_student_is_none(schedule, method):
    """The ideal student of other segments, or the teacher itself, has an error at some time."""
    teacher = GaussianTeacher(schedule)
    for student in (teacher, Ideal(teacher, num_steps=4, factor=2)):
        assert errors_of(method, teacher, student, num_steps=2, factor=4).error.max() > 1e-6


@schedules
@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_the_ideal_student_samples_like_the_teacher_in_all_its_steps(schedule, num_steps):
    teacher, start = GaussianTeacher(schedule), noise(5, 3)
    student = Ideal(teacher, num_steps=num_steps, factor=8 // num_steps)
    final = sample(denoise=student, schedule=schedule, noise=start, num_steps=num_steps)
    truth = sample(denoise=teacher, schedule=schedule, noise=start, num_steps=8)
    torch.testing.assert_close(final, truth, **IDENTITY)


@schedules
def test_at_a_segments_end_the_target_is_the_teachers_step_whatever_the_average_is(schedule):
    """The boundary condition: one step before the end of its segment, a student learns the teacher's x."""
    teacher, seen = GaussianTeacher(schedule), []

    def nonsense(z_t, t):
        seen.append(t)
        return Prediction(torch.full_like(z_t, 1e6), z_t)

    errors = errors_of(SegmentedConsistency(), teacher, teacher, num_steps=2, factor=4, average=nonsense)
    _, mid, s = SegmentedConsistency().step_times(UNIFORM, schedule=schedule, num_steps=2, factor=4)
    at_end = mid == s
    assert 0 < int(at_end.sum()) < len(at_end)
    assert (errors.error[at_end] == 0).all()
    assert (errors.error[~at_end] > 1).all()
    assert (seen[0] > 0).all()
    assert torch.equal(seen[0][~at_end], mid[~at_end])


@schedules
@pytest.mark.parametrize(("num_steps", "factor"), [(1, 8), (2, 3), (3, 2), (5, 16)])
def test_segment_times_are_a_step_of_the_teacher_and_the_end_of_its_segment(schedule, num_steps, factor):
    """As the samplers have them, to the last bit; all times of the teacher's grid are drawn, equally often."""
    finer, grid = schedule.grid(num_steps * factor), schedule.grid(num_steps)
    uniform = (torch.arange(num_steps * factor, dtype=torch.float64) + 0.5) / (num_steps * factor)
    t, mid, s = SegmentedConsistency().step_times(uniform, schedule=schedule, num_steps=num_steps, factor=factor)
    torch.testing.assert_close(t, finer[:-1].flip(0), rtol=0, atol=1e-15)
    torch.testing.assert_close(mid, finer[1:].flip(0), rtol=0, atol=1e-15)
    assert torch.equal(s, grid[1:].flip(0).repeat_interleave(factor))
    assert torch.equal(t[factor - 1 :: factor], grid[:-1].flip(0))
    assert torch.equal(mid[::factor], s[::factor])
    assert (mid >= s).all()


class Apart(CosineSchedule):
    """Whose grids do not meet in the last bits, as those of Stable Audio 3."""

    def grid(self, num_steps):
        grid = super().grid(num_steps)
        grid[1:-1] += 1e-9 / num_steps
        return grid


def test_segments_begin_and_end_where_the_student_samples():
    schedule, uniform = Apart(), (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    t, mid, s = SegmentedConsistency().step_times(uniform, schedule=schedule, num_steps=4, factor=2)
    finer, grid = schedule.grid(8).flip(0), schedule.grid(4).flip(0)
    assert not torch.equal(finer[::2], grid)
    assert torch.equal(t, torch.stack([finer[1::2], grid[1:]], dim=1).flatten())
    assert torch.equal(mid, torch.stack([grid[:-1], finer[1::2]], dim=1).flatten())
    assert torch.equal(s, grid[:-1].repeat_interleave(2))


@methods
def test_times_that_are_trained_are_those_that_are_drawn(method):
    schedule, plan = CosineSchedule(), Plan(8, 2, 1)
    first, second = plan.rounds
    eighths = [k / 8 for k in range(8, 0, -1)]
    expected = {"progressive": ([1, 0.75, 0.5, 0.25], [1, 0.5]), "segmented-consistency": (eighths, eighths)}
    assert tuple(method.times(schedule, plan, round_).tolist() for round_ in (first, second)) == expected[method.name]
    for num_steps in (3, 49, 100):  # 1 / 49 times 49 is less than 1 in floating point
        long = Plan(num_steps, 1, 1, factor=num_steps)
        assert len(method.times(schedule, long, long.rounds[0])) == (num_steps if method.keeps_teacher else 1)


def test_all_methods_draw_times_of_one_segment_from_one_number():
    """So that the arms of a comparison see clips at nearly the same noise."""
    ours, theirs = (method.step_times(UNIFORM, schedule=CosineSchedule(), num_steps=4, factor=4) for method in METHODS)
    assert torch.equal(ours[-1], theirs[-1])
    assert ((theirs[0] <= ours[0]) & (theirs[0] > ours[-1])).all()


def test_what_a_method_asks_of_a_run():
    plan = Plan(64, 4, 1, factor=4)
    for method, factors, predictions in ((METHODS[0], [4, 4], 4), (METHODS[1], [4, 16], 2)):
        assert [method.factor(plan, round_) for round_ in plan.rounds] == factors
        assert method.num_predictions(4) == predictions
    METHODS[0].check(ema_decay=None)
    METHODS[1].check(ema_decay=0.9)
    with pytest.raises(UserError, match="ema_decay is None, but the target of SegmentedConsistency takes"):
        METHODS[1].check(ema_decay=None)


@pytest.mark.parametrize("scale", [3.0, torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)], ids=["one", "each"])
@methods
def test_the_teacher_is_guided_and_networks_of_students_are_not(method, scale):
    """Unless these take the scale as an input."""
    teacher, t = Gaussian(CosineSchedule()), torch.full((3,), 0.5, dtype=torch.float64)
    z, average, asked = noise(3, 4), Gaussian(SCHEDULES["tango"]), []

    class Taking(Gaussian):
        takes_guidance = True

        def forward(self, z_t, t, conditioning, guidance_scale=None):
            asked.append(guidance_scale)
            return super().forward(z_t, t, conditioning)

    for student in (Gaussian(CosineSchedule()), Taking(CosineSchedule())):
        found = method.predictors(teacher, average, student, conditioning=COND, null=NULL, scale=scale)
        cond, uncond = teacher(z, t, COND).x, teacher(z, t, NULL.repeat(3)).x
        guided = uncond + expand(torch.as_tensor(scale), z) * (cond - uncond)
        torch.testing.assert_close(found.teacher(z, t).x, guided, **IDENTITY)
        second, own = found.second(z, t).x, average(z, t, COND).x
        torch.testing.assert_close(second, guided if method.name == "progressive" else own, **IDENTITY)
        torch.testing.assert_close(found.student(z, t).x, cond, **IDENTITY)
    expected = torch.as_tensor(scale).float().expand(3)
    assert asked
    assert all(torch.equal(given, expected) for given in asked)
