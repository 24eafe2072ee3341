"""The losses: progressive distillation (Liu et al., Algorithm 1) and the training of a teacher (equation 1).

The target of Algorithm 1 is two DDIM steps of the teacher as the x of one step of the student. Writing out "take two
steps, then solve one step for its x" with kappa = alpha / sigma leaves a convex mix of the teacher's two predictions,

    x* = (1 - lam) x1 + lam x2,    lam = (kappa_s - kappa_mid) / (kappa_s - kappa_t),    for times t > mid > s,

which we use: the algorithm's own form divides a difference of nearly equal latents by as little as 1/236 on Tango's
schedule, and latents in bfloat16 do not survive that. (Its printed target line also lost a z_t; Salimans & Ho 2022 have
it.) The same mix, taken again with each further prediction, is the x of one step for any number of the teacher's.

Nothing in it asks whose the two predictions are. With the teacher's first step and then one step of the student's own
moving average it is consistency distillation. ``docs/mathematics.md`` derives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bsa_lightning.diffusion.ddim import ddim_step
from bsa_lightning.diffusion.flow import TrainingTimes
from bsa_lightning.diffusion.process import Prediction, add_noise, expand
from bsa_lightning.diffusion.schedule import Schedule
from bsa_lightning.diffusion.weighting import Weighting

Predictor = Callable[[Tensor, Tensor], Prediction]
"""``(z_t, t) -> Prediction`` for ``z_t`` (batch, ...) and ``t`` (batch,), with conditioning and guidance bound."""


class StepTimes(Protocol):
    """How uniform numbers become the times of a step of the student, and of the steps that it learns from."""

    def __call__(self, uniform: Tensor, *, schedule: Schedule, num_steps: int, factor: int) -> list[Tensor]:
        """The times from the start of the student's step to its end, three or more, each (batch,).

        Args:
            uniform: numbers in [0, 1), (batch,) float64 on the CPU.
            schedule: the noise schedule, which has the grids of student and teacher.
            num_steps: N, the number of steps of the student's sampler.
            factor: how many steps the teacher takes in the time of one step of the student.
        """


class Errors(NamedTuple):
    """The parts of a loss, clip by clip."""

    weight: Tensor
    """w(SNR_t), (batch,), float64, on the CPU."""
    error: Tensor
    """Mean over all dimensions of the squared error in x, (batch,), in float32 or float64."""
    snr: Tensor
    """SNR_t, (batch,), float64, on the CPU."""

    def loss(self, counts: Tensor | None = None) -> Tensor:
        """The scalar: the mean of weight times error, over all clips or those where ``counts`` (batch,) is True."""
        weighted = self.weight.to(self.error, non_blocking=True) * self.error
        return weighted.mean() if counts is None else weighted[counts].mean()


def halving_times(uniform: Tensor, *, schedule: Schedule, num_steps: int, factor: int) -> list[Tensor]:
    """The times of progressive distillation: a step of the student, and the teacher's steps in it (`StepTimes`).

    Student and teacher walk different grids, which need not agree in the last bit where they meet.
    """
    # t = i/N, i ~ Cat[1, 2, ..., N]; t' = t - 0.5/N, t'' = t - 1/N
    i = (uniform * num_steps).floor() + 1
    grid, finer = schedule.grid(num_steps), schedule.grid(factor * num_steps)
    start = num_steps - i.long()
    return [grid[start], *(finer[factor * start + k] for k in range(1, factor)), grid[start + 1]]


def segment_times(uniform: Tensor, *, schedule: Schedule, num_steps: int, factor: int) -> list[Tensor]:
    """The times of consistency distillation in N segments: a time of the teacher, its next one, and the segment's end.

    Where the teacher's next time is the segment's end, the last two are equal. Ends are times of the student's grid.
    """
    grid, finer = schedule.grid(num_steps), schedule.grid(factor * num_steps)

    def at(j: Tensor) -> Tensor:
        """The time j / (factor N)."""
        return torch.where(j % factor == 0, grid[num_steps - j // factor], finer[factor * num_steps - j])

    j = (uniform * (factor * num_steps)).long() + 1
    return [at(j), at(j - 1), at((j - 1) // factor * factor)]


def distillation_loss(
    *,
    x: Tensor,
    eps: Tensor,
    uniform: Tensor,
    num_steps: int,
    factor: int = 2,
    schedule: Schedule,
    teacher: Predictor,
    student: Predictor,
    weighting: Weighting,
    step_times: StepTimes = halving_times,
    second: Predictor | None = None,
) -> Errors:
    """Algorithm 1 of Liu et al., from z_0 and eps to the loss; the comments are its lines.

    Args:
        x: clean latents z_0 (batch, ...), scaled as the diffusion sees them.
        eps: standard normal noise like ``x``.
        uniform: numbers in [0, 1), (batch,) float64 on the CPU, which become the times.
        num_steps: N, the number of steps of the student's sampler.
        factor: how many steps of the teacher one step of the student learns; 2 in the paper.
        schedule: the noise schedule that teacher and student share.
        teacher: x^_eta(z_t, tau), frozen; no gradient flows through it.
        student: x^_theta(z_t, tau).
        weighting: w(SNR) of the squared error in x (equations 6 to 10).
        step_times: the times that are drawn; those of the paper's algorithm, or of another method.
        second: the frozen predictor of all steps of the target but the first; ``None`` is ``teacher``, as in the paper.
    """
    # t = i/N, i ~ Cat[1, 2, ..., N]; t' = t - 0.5/N, t'' = t - 1/N
    times = step_times(uniform, schedule=schedule, num_steps=num_steps, factor=factor)
    t = times[0]
    # z_t = alpha_t z_0 + sigma_t eps
    alpha, sigma = schedule.alpha_sigma(t, dtype=x.dtype)
    z_t = add_noise(x=x, eps=eps, alpha=alpha, sigma=sigma)
    # 2 steps of DDIM with the teacher, solved for the z~_0 of one step
    with torch.no_grad():
        target = distillation_target(teacher=teacher, second=second, schedule=schedule, z_t=z_t, times=times)
    # L_theta = w(SNR_t) E || z~_0 - x^_theta(z_t, tau) ||^2
    snr = schedule.snr(t)
    return Errors(weighting(snr), squared_error(student(z_t, t).x, target), snr)


def denoising_loss(
    *,
    x: Tensor,
    eps: Tensor,
    uniform: Tensor,
    schedule: Schedule,
    network: Predictor,
    weighting: Weighting,
    times: TrainingTimes | None = None,
) -> Errors:
    """Equation 1 of Liu et al.: the loss that a teacher is trained with, at the times of its schedule.

    The equation weighs the error in eps; here, as everywhere, the weight is that of the error in x.

    Args:
        x: clean latents (batch, ...), scaled as the diffusion sees them.
        eps: standard normal noise like ``x``.
        uniform: numbers in [0, 1), (batch,) float64 on the CPU, which become the times.
        schedule: the noise schedule of the network.
        network: x^_theta(z_n, tau).
        weighting: w(SNR) of the squared error in x.
        times: the distribution of the times; ``None`` is uniform, over all times of the schedule.
    """
    t = schedule.trained_times(uniform) if times is None else schedule.nearest_trained(times(uniform))
    alpha, sigma = schedule.alpha_sigma(t, dtype=x.dtype)
    z_t = add_noise(x=x, eps=eps, alpha=alpha, sigma=sigma)
    snr = schedule.snr(t)
    return Errors(weighting(snr), squared_error(network(z_t, t).x, x), snr)


def distillation_target(
    *,
    teacher: Predictor,
    schedule: Schedule,
    z_t: Tensor,
    times: Sequence[Tensor],
    second: Predictor | None = None,
) -> Tensor:
    """x* (batch, ...): the x with which one DDIM step from ``z_t`` lands where the steps of the predictors land.

    Args:
        teacher: the predictor of the first step, with conditioning and guidance bound.
        schedule: shared by teacher and student.
        z_t: noisy latents (batch, ...).
        times: where the steps start and end, each (batch,); (t, t', t'') in the paper's algorithm. A last step that
            has no length counts for nothing: there x* is that of the steps before.
        second: the predictor of the further steps; ``None`` is ``teacher``.
    """
    t = times[0]
    second = teacher if second is None else second
    prediction = teacher(z_t, t)
    x = prediction.x
    for mid, s in pairwise(times[1:]):
        alpha, sigma = schedule.alpha_sigma(mid, dtype=z_t.dtype)
        z_mid = ddim_step(prediction=prediction, alpha_s=alpha, sigma_s=sigma)
        # A step without length may stand at t = 0, which no network knows; its prediction has no weight at any time.
        prediction = second(z_mid, torch.where(mid == s, t, mid))
        lam = expand(mix_coefficient(schedule=schedule, t=t, mid=mid, s=s).to(z_t.dtype), z_t)
        x = (1 - lam) * x + lam * prediction.x
    return x


def mix_coefficient(*, schedule: Schedule, t: Tensor, mid: Tensor, s: Tensor) -> Tensor:
    """lam in [0, 1], float64, shaped like ``t``; 1 at s = 0, where the target is the last prediction, 0 at mid = s.

    The kappas are multiplied out, since kappa is infinite at s = 0:
    lam = sigma_t (alpha_s sigma_mid - alpha_mid sigma_s) / (sigma_mid (alpha_s sigma_t - alpha_t sigma_s)).
    """
    dtype = t.double().dtype
    alpha_t, sigma_t = schedule.alpha_sigma(t, dtype=dtype)
    alpha_mid, sigma_mid = schedule.alpha_sigma(mid, dtype=dtype)
    alpha_s, sigma_s = schedule.alpha_sigma(s, dtype=dtype)
    numerator = sigma_t * (alpha_s * sigma_mid - alpha_mid * sigma_s)
    lam = numerator / (sigma_mid * (alpha_s * sigma_t - alpha_t * sigma_s))
    return torch.where(mid == s, 0.0, lam)


def squared_error(x: Tensor, target: Tensor) -> Tensor:
    """The mean over all dimensions but the first of (target - x)^2, (batch,), in float32 or float64."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return (target.to(dtype) - x.to(dtype)).square().flatten(1).mean(1)
