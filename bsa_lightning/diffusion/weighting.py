"""Loss weightings w(SNR) of the x-space error ||x - x_student||^2, the one thing that weighting studies vary.

The same loss in another space has another weight: errors relate by ||eps||^2 = SNR ||x||^2; on schedules with
alpha^2 + sigma^2 = 1 by ||v||^2 = (SNR + 1) ||x||^2; on rectified flows by ||u||^2 = (1 + sqrt(SNR))^2 ||x||^2. The
weight there is w divided by that factor.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.diffusion.schedule import Schedule

_log = logging.getLogger(__name__)

_GAMMA = 5.0
"""Of the papers."""
_VANISHING = 1e-8
"""Weights below it move nothing: an optimizer such as Adam adds as much to the size of a gradient."""


class Weighting(ABC):
    """A function of SNR (any shape, 0 to infinity)."""

    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The settings besides the name, as the provenance of a student records them."""
        return {name: value for name, value in vars(self).items() if name != "name"}

    @abstractmethod
    def __call__(self, snr: Tensor) -> Tensor:
        """Weight of the squared error in x."""

    def in_eps(self, snr: Tensor) -> Tensor:
        """Weight of the squared error in eps that gives the same loss."""
        return self(snr) / snr

    def in_v(self, snr: Tensor) -> Tensor:
        """Weight of the squared error in v that gives the same loss, on a variance-preserving schedule."""
        return self(snr) / (snr + 1)

    def in_u(self, snr: Tensor) -> Tensor:
        """Weight of the squared error in u that gives the same loss, on a rectified flow: w sigma^2."""
        return self(snr) / (1 + snr.sqrt()) ** 2


class Uniform(Weighting):
    """w = 1: plain x-MSE."""

    name = "uniform"

    def __call__(self, snr: Tensor) -> Tensor:
        return torch.ones_like(snr)


class SNR(Weighting):
    """w = SNR: plain eps-MSE (Ho et al. 2020; Liu et al., eq. 6)."""

    name = "snr"

    def __call__(self, snr: Tensor) -> Tensor:
        return snr


class TruncatedSNR(Weighting):
    """w = max(SNR, 1) (Salimans & Ho 2022; Liu et al., eq. 7)."""

    name = "truncated-snr"

    def __call__(self, snr: Tensor) -> Tensor:
        return snr.clamp(min=1)


class SNRPlusOne(Weighting):
    """w = SNR + 1: plain v-MSE (Salimans & Ho 2022; Liu et al., eq. 8)."""

    name = "snr+1"

    def __call__(self, snr: Tensor) -> Tensor:
        return snr + 1


class VelocityMSE(Weighting):
    """w = (1 + sqrt(SNR))^2 = 1 / sigma^2 on a rectified flow: plain u-MSE."""

    name = "u-mse"

    def __call__(self, snr: Tensor) -> Tensor:
        return (1 + snr.sqrt()) ** 2


class _Capped(Weighting):
    """A weighting with a cap.

    Args:
        gamma: the cap, above 0; 5 in the papers.
    """

    def __init__(self, gamma: float = _GAMMA) -> None:
        check_number("gamma", gamma, above=0, advice="the papers use 5")
        self.gamma = gamma
        if gamma != _GAMMA:
            self.name = f"{self.name}-gamma{gamma:g}"


class MinSNR(_Capped):
    """w = min(SNR, gamma) (Hang et al. 2023; Liu et al., eq. 9)."""

    name = "min-snr"

    def __call__(self, snr: Tensor) -> Tensor:
        return snr.clamp(max=self.gamma)


class BSA(_Capped):
    """w = min(SNR + 1, gamma): balanced SNR-aware (Liu et al., eq. 10)."""

    name = "bsa"

    def __call__(self, snr: Tensor) -> Tensor:
        return (snr + 1).clamp(max=self.gamma)


class FlowBSA(_Capped):
    """w = min((1 + sqrt(SNR))^2, gamma): plain u-MSE of a rectified flow, capped as BSA caps plain v-MSE.

    The cap is reached at sigma = 1 / sqrt(gamma). BSA itself, min(SNR + 1, gamma), gives the error in u half that
    weight at sigma = 1/2, where neither is capped.
    """

    name = "flow-bsa"

    def __call__(self, snr: Tensor) -> Tensor:
        return ((1 + snr.sqrt()) ** 2).clamp(max=self.gamma)


class Tango(_Capped):
    """w = min(SNR, gamma) (SNR + 1) / SNR: Tango was trained with min(SNR, gamma) / SNR as the weight of its v-loss."""

    name = "tango"

    def __call__(self, snr: Tensor) -> Tensor:
        capped = self.gamma + self.gamma / snr  # gamma (SNR + 1) / SNR, finite at infinity
        return torch.where(snr > self.gamma, capped, snr + 1)


class OwnWeighting(Weighting):
    """A function of your own.

    Args:
        function: a function from SNR to weights, both of the same shape; in YAML its import path, such as
            my_package.weights.log_snr. It is a module's own function, not a lambda, so that its path can be recorded.
        name: the name in scores and provenance; ``None`` is the name of the function.

    Raises:
        UserError: if the function has no import path, or the name is none, or that of another weighting.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        if not isinstance(function, FunctionType) or "<" in function.__qualname__:
            raise UserError(
                f"function is {getattr(function, '__qualname__', repr(function))}, which has no import path that a run"
                " could record; define it by `def` at the top level of a module"
            )
        self.function = function
        self.path = f"{function.__module__}.{function.__qualname__}"
        self.name = function.__name__.strip("_").replace("_", "-") if name is None else name
        if not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise UserError(f'name is "{self.name}", but must be of letters, digits, and . + - _; choose another one')
        if found := [word for word in ("-with-", "-by-") if word in f"-{self.name}-"]:
            raise UserError(
                f'name is "{self.name}", in which "{found[0]}" would begin the name of a sampler or method in the'
                " names of folders; give another name"
            )
        others = (Uniform, SNR, TruncatedSNR, SNRPlusOne, VelocityMSE, MinSNR, BSA, FlowBSA, Tango)
        if taken := [kind.__name__ for kind in others if kind.name == self.name]:
            raise UserError(
                f'name is "{self.name}", which is the name of {taken[0]} in scores and reports; choose another one'
            )

    @property
    def parameters(self) -> dict[str, Any]:
        return {"function": self.path}

    def __call__(self, snr: Tensor) -> Tensor:
        weights = self.function(snr)
        if not isinstance(weights, Tensor) or weights.shape != snr.shape:
            found = f"a tensor of {tuple(weights.shape)}" if isinstance(weights, Tensor) else repr(weights)
            raise UserError(
                f"{self.path} gives {found} for SNR of the shape {tuple(snr.shape)}; have it return a tensor of that"
                " shape"
            )
        return weights


def plain_weighting(schedule: Schedule) -> Weighting:
    """The weighting with which the loss is a plain mean squared error in v, or in u on a rectified flow."""
    return SNRPlusOne() if schedule.is_variance_preserving else VelocityMSE()


def check_weights(weighting: Weighting, schedule: Schedule, times: Tensor, *, where: str) -> None:
    """Refuses a weighting that gives no weight to any of ``times`` (n,); warns where it gives none to some of them.

    Args:
        weighting: the weighting of the squared error in x.
        schedule: the noise schedule, which gives the SNR at each time.
        times: the times that are trained at.
        where: a phrase that says which times these are, for the message.

    Raises:
        UserError: if all weights vanish in float32, or one is negative or not finite.
    """
    weights = weighting(schedule.snr(times)).float()
    if not (weights.isfinite() & (weights >= 0)).all():
        raise UserError(
            f"the weighting {weighting.name} gives {weights.tolist()} {where}, but weights must be finite and at least"
            " 0; choose another one"
        )
    vanished = times[weights < _VANISHING].tolist()
    if len(vanished) == len(times):
        raise UserError(
            f"the weighting {weighting.name} is 0 at all times {where}, so that nothing would be trained; choose one"
            " that is above 0 where there is no signal, such as BSA, or end with more steps"
        )
    if vanished:
        _log.warning("the weighting %s is 0 at t = %s %s: nothing is learnt there", weighting.name, vanished, where)
