"""DDIM on the cosine schedule as a diffusers scheduler: how ``StableAudioPipeline`` samples a student.

It needs torch and diffusers alone, so that a model folder may carry this file for those who have no more than these.
"""

from __future__ import annotations

import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

# SchedulerMixin has to be a name of this module: diffusers finds out there how to load what a model_index.json names.
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from torch import Tensor


class CosineDDIMScheduler(SchedulerMixin, ConfigMixin):
    """Deterministic steps for networks that predict v, on the grid t = 1, 1 - 1/N, ..., 1/N; the last ends at t = 0.

    alpha = cos(pi t / 2) and sigma = sin(pi t / 2), with alpha 0 at t = 1; latents start as standard normal noise.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(self) -> None:
        self.set_timesteps(100)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Lays out ``timesteps``, (num_inference_steps,) float32, on ``device``.

        Raises:
            ValueError: if there is no step to take.
        """
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}, but must be at least 1")
        self.num_inference_steps = num_inference_steps
        grid = torch.arange(num_inference_steps, 0, -1, dtype=torch.float64) / num_inference_steps
        self.timesteps = grid.float().to(device)

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:  # noqa: ARG002
        """The latent as it is: the schedule is variance preserving."""
        return sample

    def step(
        self, model_output: Tensor, timestep: Tensor | float, sample: Tensor, return_dict: bool = True
    ) -> SchedulerOutput | tuple[Tensor]:
        """From ``timestep`` to the next time of the grid; ``model_output`` is v, of the shape of ``sample``."""
        position = round(float(timestep) * self.num_inference_steps)
        (alpha, sigma), (alpha_s, sigma_s) = self._alpha_sigma(position), self._alpha_sigma(position - 1)
        z_t, v = sample.float(), model_output.float()
        x, eps = alpha * z_t - sigma * v, sigma * z_t + alpha * v
        z_s = (alpha_s * x + sigma_s * eps).to(sample.dtype)
        return SchedulerOutput(prev_sample=z_s) if return_dict else (z_s,)

    def _alpha_sigma(self, position: int) -> tuple[float, float]:
        """At t = position / N; cos(pi / 2) is 6e-17 in floating point, the schedule means 0."""
        angle = math.pi / 2 * position / self.num_inference_steps
        return (0.0 if position == self.num_inference_steps else math.cos(angle)), math.sin(angle)
