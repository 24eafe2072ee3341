"""The target of progressive distillation: DDIM steps of the teacher, as the x of one step of the student.

Liu et al., Algorithm 1 (its printed target line lost its z_t), after Salimans & Ho 2022. Times are t > mid > s.
Writing out "two steps, then invert one" with kappa = alpha / sigma leaves a convex mix of the teacher's two
x-predictions,

    x* = (1 - lam) x1 + lam x2,    lam = (kappa_s - kappa_mid) / (kappa_s - kappa_t),

which we use: the textbook form divides a difference of nearly equal latents by as little as 1/236 on Tango's
schedule, and latents in bf16 do not survive that. The same mix, taken again with each further prediction, is the x of
one step for any number of the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from bsa_lightning.diffusion.process import Prediction, ddim_step, expand
from bsa_lightning.diffusion.schedule import Schedule


def mix_coefficient(*, schedule: Schedule, t: Tensor, mid: Tensor, s: Tensor) -> Tensor:
    """lam in [0, 1], float64, shaped like ``t``; 1 at s = 0, where the target is the second prediction.

    The kappas are multiplied out, since kappa is infinite at s = 0:
    lam = sigma_t (alpha_s sigma_mid - alpha_mid sigma_s) / (sigma_mid (alpha_s sigma_t - alpha_t sigma_s)).
    """
    dtype = t.double().dtype
    alpha_t, sigma_t = schedule.alpha_sigma(t, dtype=dtype)
    alpha_mid, sigma_mid = schedule.alpha_sigma(mid, dtype=dtype)
    alpha_s, sigma_s = schedule.alpha_sigma(s, dtype=dtype)
    numerator = sigma_t * (alpha_s * sigma_mid - alpha_mid * sigma_s)
    return numerator / (sigma_mid * (alpha_s * sigma_t - alpha_t * sigma_s))


def distillation_target(
    *, teacher: Callable[[Tensor, Tensor], Prediction], schedule: Schedule, z_t: Tensor, times: Sequence[Tensor]
) -> Tensor:
    """x* (batch, ...): the x with which one DDIM step from ``z_t`` lands where the teacher's steps land.

    Args:
        teacher: ``(z, t) -> Prediction``, conditioning and guidance bound.
        schedule: shared by teacher and student.
        z_t: noisy latents (batch, ...).
        times: where the teacher's steps start and end, each (batch,); (t, mid, s) in the paper's algorithm.
    """
    t = times[0]
    prediction = teacher(z_t, t)
    x = prediction.x
    for mid, s in pairwise(times[1:]):
        alpha, sigma = schedule.alpha_sigma(mid, dtype=z_t.dtype)
        prediction = teacher(ddim_step(prediction=prediction, alpha_s=alpha, sigma_s=sigma), mid)
        lam = expand(mix_coefficient(schedule=schedule, t=t, mid=mid, s=s).to(z_t.dtype), z_t)
        x = (1 - lam) * x + lam * prediction.x
    return x
