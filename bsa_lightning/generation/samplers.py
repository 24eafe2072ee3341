"""How an undistilled model may be sampled: the ways that a student has to beat."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.diffusion.schedule import Schedule, trailing_grid

_LEAST_SIGNAL = 2.0**-12
"""The alpha that DPM-Solver++ is told where a schedule has less, so that its largest sigma / alpha is 4096.

It is the value that diffusers itself puts in place of 0 (``rescale_betas_zero_snr``). The network sees the true t."""


class Sampler(ABC):
    """A way from noise to a clean latent. Two samplers of one class and equal settings are the same sampler."""

    name: str
    """For the column ``sampler`` of ``scores.csv`` and for folders: lower-case letters, digits, ``+`` and ``-``."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """What decides the samples, for the key under which they are cached; a change of the code must change it."""

    @abstractmethod
    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Prediction],
        schedule: Schedule,
        noise: Tensor,
        num_steps: int,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Returns clean latents of the shape of ``noise``.

        Args:
            denoise: ``(z_t, t) -> Prediction``, with conditioning and guidance bound; ``t`` is (batch,) float64. It is
                called once a step.
            schedule: the noise schedule of the denoiser.
            noise: standard normal latents (batch, ...), z_1.
            num_steps: the number of steps N on the trailing grid 1, 1 - 1/N, ..., 0; at least 1.
            on_step: called after each step with its number, from 1.
        """


@dataclass(frozen=True)
class DDIM(Sampler):
    """Deterministic first-order steps (Song et al. 2021), for which students are made."""

    name = "ddim"

    @property
    def fingerprint(self) -> str:
        return "DDIM on the trailing grid, 1"

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Prediction],
        schedule: Schedule,
        noise: Tensor,
        num_steps: int,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        return sample(denoise=denoise, schedule=schedule, noise=noise, num_steps=num_steps, on_step=on_step)


@dataclass(frozen=True)
class DPMSolver(Sampler):
    """DPM-Solver++ (Lu et al. 2022), second order and multistep, as diffusers' ``DPMSolverMultistepScheduler`` does it.

    All its settings are the scheduler's defaults but for the grid, which is DDIM's. The first and the last step are of
    first order, so that one step is a DDIM step, and so are two.
    """

    name = "dpm-solver++"

    @property
    def fingerprint(self) -> str:
        return f"DPM-Solver++ of diffusers {importlib.metadata.version('diffusers')} on the trailing grid, 1"

    @torch.no_grad()
    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Prediction],
        schedule: Schedule,
        noise: Tensor,
        num_steps: int,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        from diffusers import DPMSolverMultistepScheduler

        solver = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, prediction_type="sample")
        grid = trailing_grid(num_steps)
        alpha, sigma = schedule.alpha_sigma(grid, dtype=torch.float64)
        solver.set_timesteps(num_steps)
        # The scheduler steps by position, so that its whole timesteps need not be those of the schedule.
        solver.timesteps, solver.sigmas = grid[:-1], sigma / alpha.clamp(min=_LEAST_SIGNAL)
        solver.set_begin_index(0)
        z = noise
        for step, (t, _) in enumerate(pairwise(grid), start=1):
            x = denoise(z, t.to(z.device).expand(len(z))).x
            z = solver.step(x, t, z, return_dict=False)[0]
            if on_step is not None:
                on_step(step)
        return z
