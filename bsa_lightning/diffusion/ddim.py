"""DDIM: its step, and the sampler that walks the trailing grid with any denoiser."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from bsa_lightning.diffusion.process import Prediction, add_noise
from bsa_lightning.diffusion.schedule import Schedule


def ddim_step(*, prediction: Prediction, alpha_s: Tensor, sigma_s: Tensor) -> Tensor:
    """z_s = alpha_s x + sigma_s eps: the deterministic step to time s (Song et al. 2021; Liu et al., Algorithm 1).

    On a flow schedule it is an Euler step of the velocity.
    """
    return add_noise(x=prediction.x, eps=prediction.eps, alpha=alpha_s, sigma=sigma_s)


@torch.no_grad()
def sample(
    *,
    denoise: Callable[[Tensor, Tensor], Prediction],
    schedule: Schedule,
    noise: Tensor,
    num_steps: int,
) -> Tensor:
    """Clean latents (batch, ...) from ``noise`` (batch, ...), z_1; the last step lands on t = 0 and so returns x.

    Args:
        denoise: ``(z_t, t) -> Prediction``, conditioning and guidance bound; ``t`` is (batch,) float64 on the CPU.
        schedule: the noise schedule of the denoiser.
        noise: standard normal noise.
        num_steps: the number of steps N, on the N + 1 times of the trailing grid.
    """
    z = noise
    for t, s in pairwise(schedule.grid(num_steps)):
        prediction = denoise(z, t.expand(len(z)))
        alpha_s, sigma_s = schedule.alpha_sigma(s, dtype=z.dtype)
        z = ddim_step(prediction=prediction, alpha_s=alpha_s, sigma_s=sigma_s)
    return z
