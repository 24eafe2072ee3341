"""The samplers of undistilled models, which students are compared with, and of students."""

from __future__ import annotations

import hashlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bsa_lightning.data.order import seeded
from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.diffusion.process import Prediction, add_noise
from bsa_lightning.diffusion.schedule import Schedule

_LEAST_SIGNAL = 2.0**-12
"""The least alpha that DPM-Solver++ computes with, so that its largest sigma / alpha is 4096.

It is the value that diffusers itself puts in place of 0 (``rescale_betas_zero_snr``). The network sees the true t."""


class Sampler(ABC):
    """A way from noise to a clean latent; samplers of one class with equal settings are equal."""

    name: str
    """The name in ``scores.csv`` and in folders; of lower-case letters, digits, ``+`` and ``-``."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A text that identifies the samples in caches: it must change whenever the code would sample otherwise."""

    def evaluations(self, num_steps: int) -> int:
        """Returns how many times ``denoise`` is called in so many steps: one for each, unless a sampler says otherwise.

        Students are compared with undistilled models of as many network evaluations, so that it must be exact.
        """
        return num_steps

    @abstractmethod
    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Prediction],
        schedule: Schedule,
        noise: Tensor,
        num_steps: int,
    ) -> Tensor:
        """Returns clean latents of the shape of ``noise``.

        Args:
            denoise: the function ``(z_t, t) -> Prediction``, with conditioning and guidance bound, where ``t`` is
                (batch,) float64 on the CPU; it is called :meth:`evaluations` times.
            schedule: the noise schedule of the denoiser.
            noise: the standard normal latents z_1, (batch, ...).
            num_steps: the number of steps N on the grid of the schedule, 1, 1 - 1/N, ..., 0; at least 1.
        """


@dataclass(frozen=True)
class DDIM(Sampler):
    """DDIM (Song et al. 2021): deterministic first-order steps, which students are trained for; Euler's on a flow."""

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
    ) -> Tensor:
        return sample(denoise=denoise, schedule=schedule, noise=noise, num_steps=num_steps)


@dataclass(frozen=True)
class Renoising(Sampler):
    """The multistep sampler of consistency models (Song et al. 2023): to a clean latent, then new noise of time s.

    For students that go from any time to t = 0 in one step; one step is DDIM's. The new noise of a clip is a function
    of the noise that the clip starts from, so that batches and ranks do not matter.
    """

    name = "re-noising"

    @property
    def fingerprint(self) -> str:
        return "re-noising on the trailing grid, 1"

    @torch.no_grad()
    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Prediction],
        schedule: Schedule,
        noise: Tensor,
        num_steps: int,
    ) -> Tensor:
        fresh = [seeded(_digest(clip)) for clip in noise] if num_steps > 1 else []
        z = noise
        for step, (t, s) in enumerate(pairwise(schedule.grid(num_steps)), start=1):
            x = denoise(z, t.expand(len(z))).x
            if step < num_steps:
                alpha, sigma = schedule.alpha_sigma(s, dtype=x.dtype)
                eps = torch.stack([torch.randn(noise.shape[1:], generator=generator) for generator in fresh])
                z = add_noise(x=x, eps=eps.to(x), alpha=alpha, sigma=sigma)
        return x


@dataclass(frozen=True)
class DPMSolver(Sampler):
    """DPM-Solver++ (Lu et al. 2022), second order and multistep, by diffusers' ``DPMSolverMultistepScheduler``.

    All settings are the scheduler's defaults, except for the grid, which is that of DDIM. The first and the last step
    are of first order, so that sampling in one or two steps is DDIM. The scheduler steps through a variance-preserving
    process; latents of another one are scaled to it by 1 / sqrt(alpha^2 + sigma^2).
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
    ) -> Tensor:
        from diffusers import DPMSolverMultistepScheduler

        solver = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, prediction_type="sample")
        grid = schedule.grid(num_steps)
        alpha, sigma = schedule.alpha_sigma(grid, dtype=torch.float64)
        scales = (alpha**2 + sigma**2).sqrt().to(noise.dtype)
        solver.set_timesteps(num_steps)
        # The scheduler steps by position, so that its timesteps need not be those of the schedule.
        solver.timesteps, solver.sigmas = grid[:-1], sigma / alpha.clamp(min=_LEAST_SIGNAL)
        solver.set_begin_index(0)
        z = noise / scales[0]
        for t, scale in zip(grid[:-1], scales, strict=False):
            x = denoise(scale * z, t.expand(len(z))).x
            z = solver.step(x, t, z, return_dict=False)[0]
        return z


def _digest(clip: Tensor) -> int:
    """Returns a seed that is a function of the numbers of a tensor alone."""
    return int.from_bytes(hashlib.sha256(clip.double().cpu().contiguous().numpy().tobytes()).digest()[:7], "big")
