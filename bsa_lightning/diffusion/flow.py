"""Rectified flow: z_t = (1 - sigma) x + sigma eps with sigma = warp(t), whose networks predict u = eps - x.

A DDIM step on such a schedule is an Euler step of u, z_s = z_t + (sigma_s - sigma_t) u, and the target of Algorithm 1
is the mean of two velocities; nothing in ``ddim.py`` and ``losses.py`` is particular to flows. ``docs/mathematics.md``
derives it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.diffusion.schedule import Schedule

_ROUNDING = 1e-9
"""How far the ends of a grid may be from 0 and 1, where a warp that leaps there must not take them for other times."""


class Warp(ABC):
    """The noise scale sigma of a place t in [0, 1] on the trailing grid: rising, 0 at t = 0 and 1 at t = 1."""

    @abstractmethod
    def __call__(self, t: Tensor) -> Tensor:
        """sigma at float64 times of any shape."""


class Identity(Warp):
    """sigma = t (TangoFlux)."""

    def __call__(self, t: Tensor) -> Tensor:
        return t


class Shift(Warp):
    """sigma = k t / (1 + (k - 1) t), which spends more of the steps at high noise (Esser et al. 2024).

    Args:
        shift: k, above 0; 1 is no shift.

    Raises:
        UserError: if ``shift`` is not above 0.
    """

    def __init__(self, shift: float) -> None:
        check_number("shift", shift, above=0, advice="1 is no shift")
        self.shift = shift

    def __call__(self, t: Tensor) -> Tensor:
        # 1 + (shift - 1) is not shift for all numbers, such as 0.1.
        return torch.where(t == 1, 1.0, self.shift * t / (1 + (self.shift - 1) * t))


class LogSNR(Warp):
    """ln((1 - sigma) / sigma), half of ln SNR, is linear in t; both ends are set to 0 and 1 (Stable Audio 3).

    The limits there are not 0 and 1, so that the first and the last step leap.

    Args:
        low: ln((1 - sigma) / sigma) next to t = 1.
        high: ln((1 - sigma) / sigma) next to t = 0, above ``low``.

    Raises:
        UserError: if ``high`` is not above ``low``.
    """

    def __init__(self, low: float = -6.2, high: float = 2.0) -> None:
        check_number("low", low)
        check_number("high", high, above=low)
        self.low, self.high = low, high

    def __call__(self, t: Tensor) -> Tensor:
        sigma = torch.sigmoid((self.high - self.low) * t - self.high)
        return torch.where(t < _ROUNDING, 0.0, torch.where(t > 1 - _ROUNDING, 1.0, sigma))


class FlowSchedule(Schedule):
    """alpha_t = 1 - sigma_t, sigma_t = warp(t): continuous time, no signal left at t = 1.

    Args:
        warp: from the place on the grid to sigma.

    Raises:
        UserError: if the warp is not 0 at t = 0 and 1 at t = 1, or does not rise in between.
    """

    is_variance_preserving = False

    def __init__(self, warp: Warp) -> None:
        self.warp = warp
        sigma = warp(torch.linspace(0, 1, 1001, dtype=torch.float64))
        if (ends := (float(sigma[0]), float(sigma[-1]))) != (0.0, 1.0):
            raise UserError(
                f"the warp {type(warp).__name__} goes from {ends[0]:g} at t = 0 to {ends[1]:g} at t = 1, but must go"
                " from 0 to 1; set both ends"
            )
        if not (sigma.diff() > 0).all():
            raise UserError(f"the warp {type(warp).__name__} does not rise everywhere from t = 0 to t = 1; correct it")

    def has_exact_grid(self, num_steps: int) -> bool:  # noqa: ARG002
        return True

    def trained_times(self, uniform: Tensor) -> Tensor:
        return 1 - uniform.double()

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.warp(t)
        return 1 - sigma, sigma


class TrainingTimes(ABC):
    """The distribution of the times t in (0, 1] at which a teacher is trained."""

    @abstractmethod
    def __call__(self, uniform: Tensor) -> Tensor:
        """The times, (batch,) float64, that numbers uniform in [0, 1), (batch,), become."""


class LogitNormalTimes(TrainingTimes):
    """t = sigmoid(n), n normal, so that most times are in the middle (Esser et al. 2024; TangoFlux: 0 and 1).

    Args:
        mean: the mean of n; above 0 is towards noise.
        std: the standard deviation of n, above 0.

    Raises:
        UserError: if a setting is out of its range.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        check_number("mean", mean)
        check_number("std", std, above=0)
        self.mean, self.std = mean, std

    def __call__(self, uniform: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(1 - uniform.double()))
