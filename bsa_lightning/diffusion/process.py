"""The forward process z_t = alpha_t x + sigma_t eps, and what networks predict of it.

``alpha`` and ``sigma`` are scalars or (batch,), on the CPU or on the device of the latents; latents are (batch, ...).
SNR is alpha^2 / sigma^2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.schedule import Schedule


class Prediction(NamedTuple):
    """A denoiser's estimate of the clean latent ``x`` and of the noise ``eps``, each (batch, ...)."""

    x: Tensor
    eps: Tensor


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Values (batch,) as (batch, 1, ...) on the device of ``like``, so that they broadcast over it; a scalar stays."""
    if not values.ndim:
        return values
    if values.device != like.device:
        values = values.to(like.device, non_blocking=values.device.type == "cpu")  # without waiting for the device
    return values.reshape(-1, *[1] * (like.ndim - 1))


def add_noise(*, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """z_t = alpha_t x + sigma_t eps."""
    return expand(alpha, x) * x + expand(sigma, x) * eps


class Parametrization(ABC):
    """What a network's output stands for."""

    def check_schedule(self, schedule: Schedule) -> None:  # noqa: B027
        """Refuses a schedule for which x and eps do not follow from the output.

        Raises:
            UserError: if it is such a schedule.
        """

    @abstractmethod
    def prediction(self, *, output: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
        """The network's output at ``z_t`` as (x, eps)."""

    @abstractmethod
    def output(self, *, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What a perfect network would output where the truth is (x, eps)."""


class V(Parametrization):
    """v = alpha_t eps - sigma_t x (Salimans & Ho 2022); for schedules with alpha^2 + sigma^2 = 1."""

    def check_schedule(self, schedule: Schedule) -> None:
        if not schedule.is_variance_preserving:
            raise UserError(
                f"the network predicts v, but {type(schedule).__name__} is not variance preserving, so that x does not"
                " follow from it; a flow network predicts the velocity u = eps - x"
            )

    def prediction(self, *, output: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
        alpha, sigma = expand(alpha, z_t), expand(sigma, z_t)
        return Prediction(x=alpha * z_t - sigma * output, eps=sigma * z_t + alpha * output)

    def output(self, *, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return expand(alpha, x) * eps - expand(sigma, x) * x


class Velocity(Parametrization):
    """u = eps - x; for rectified flows, with alpha = 1 - sigma (Liu, Gong & Liu 2023)."""

    def check_schedule(self, schedule: Schedule) -> None:
        if schedule.is_variance_preserving:
            raise UserError(
                f"the network predicts the velocity u = eps - x, but {type(schedule).__name__} is not that of a"
                " rectified flow, so that x does not follow from it; name v_prediction, epsilon or sample"
            )

    def prediction(self, *, output: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
        return Prediction(x=z_t - expand(sigma, z_t) * output, eps=z_t + expand(alpha, z_t) * output)

    def output(self, *, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        return eps - x


class Eps(Parametrization):
    """The noise; x = (z_t - sigma_t eps) / alpha_t has no value where alpha_t is 0."""

    def prediction(self, *, output: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
        return Prediction(x=(z_t - expand(sigma, z_t) * output) / expand(alpha, z_t), eps=output)

    def output(self, *, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        return eps


class X(Parametrization):
    """The clean latent; eps = (z_t - alpha_t x) / sigma_t has no value where sigma_t is 0."""

    def prediction(self, *, output: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
        return Prediction(x=output, eps=(z_t - expand(alpha, z_t) * output) / expand(sigma, z_t))

    def output(self, *, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        return x
