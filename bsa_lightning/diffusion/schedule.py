"""Noise schedules: time t in [0, 1] (0 is clean) to alpha_t and sigma_t, and the grids that samplers walk.

All of it is computed on the CPU in float64, which some devices lack, so that every device sees the same numbers and
none is waited for. The functions of latents take its results from there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Schedule(ABC):
    """alpha_t falls from 1 at t = 0, and sigma_t rises from 0."""

    is_variance_preserving: bool = True
    """Whether alpha_t^2 + sigma_t^2 = 1, which the prediction of v relies on."""

    @abstractmethod
    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at float64 times on the CPU."""

    @property
    def most_steps(self) -> float:
        """The largest number of steps whose times the schedule tells apart; infinite in continuous time."""
        return math.inf

    @abstractmethod
    def has_exact_grid(self, num_steps: int) -> bool:
        """Whether diffusers' own sampler, which steps in whole timesteps, walks the same grid of ``num_steps``."""

    @abstractmethod
    def trained_times(self, uniform: Tensor) -> Tensor:
        """Times in (0, 1], as a teacher is trained at, from numbers uniform in [0, 1)."""

    def nearest_trained(self, t: Tensor) -> Tensor:
        """The trained times, float64, nearest to times in (0, 1]; any time where the schedule is continuous."""
        return t

    def grid(self, num_steps: int) -> Tensor:
        """The times of a sampler of ``num_steps`` steps, (num_steps + 1,) float64: the trailing grid."""
        return trailing_grid(num_steps)

    def alpha_sigma(self, t: Tensor, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Signal and noise scale at times ``t`` of any shape, on the CPU."""
        alpha, sigma = self._alpha_sigma(t.cpu().double())
        return alpha.to(dtype), sigma.to(dtype)

    def snr(self, t: Tensor) -> Tensor:
        """alpha_t^2 / sigma_t^2 in float64, on the CPU; infinite at t = 0."""
        alpha, sigma = self._alpha_sigma(t.cpu().double())
        return (alpha / sigma) ** 2


class TableSchedule(Schedule):
    """A schedule of trained timesteps: position k = round(K t) of K; k = 0 is clean, the network of k sees k - 1.

    Args:
        alphas_cumprod: alpha^2 of the K trained timesteps, the cleanest first.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.num_timesteps = len(alphas_cumprod)
        self._alpha_squared = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod.double().cpu()])

    @property
    def most_steps(self) -> int:
        return self.num_timesteps

    def position(self, t: Tensor) -> Tensor:
        """k = round(K t), int64, on the CPU."""
        return (t.cpu().double() * self.num_timesteps).round().long()

    def has_exact_grid(self, num_steps: int) -> bool:
        return self.num_timesteps % num_steps == 0

    def trained_times(self, uniform: Tensor) -> Tensor:
        return ((uniform.double() * self.num_timesteps).floor() + 1) / self.num_timesteps

    def nearest_trained(self, t: Tensor) -> Tensor:
        return self.position(t).clamp(min=1).double() / self.num_timesteps

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_squared = self._alpha_squared[self.position(t)]
        return alpha_squared.sqrt(), (1 - alpha_squared).sqrt()


class CosineSchedule(Schedule):
    """alpha_t = cos(pi t / 2), sigma_t = sin(pi t / 2): continuous time, no signal left at t = 1."""

    def has_exact_grid(self, num_steps: int) -> bool:  # noqa: ARG002
        return True

    def trained_times(self, uniform: Tensor) -> Tensor:
        return 1 - uniform.double()

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = t * (math.pi / 2)
        # cos(pi / 2) is 6e-17 in floating point; the schedule means 0.
        return torch.where(t == 1, 0.0, angle.cos()), angle.sin()


def scaled_linear(*, beta_start: float, beta_end: float, num_timesteps: int) -> Tensor:
    """The table whose betas are linear in their square roots (Stable Diffusion, Tango), float64 (num_timesteps,)."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def trailing_grid(num_steps: int) -> Tensor:
    """The num_steps + 1 times 1, 1 - 1/N, ..., 0 in float64; the grid of N is a subset of the grid of 2N."""
    return torch.arange(num_steps, -1, -1, dtype=torch.float64) / num_steps
