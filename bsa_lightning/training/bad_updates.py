"""Skips and counts updates that would ruin a student, and ends the run when there are too many of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.training.latent_module import LatentModule, RoundObserver
from bsa_lightning.training.sharding import whole

_DECAY = 0.98
"""The decay of the moving average of the gradient's norm, which averages over about fifty updates."""


class BadUpdates(RoundObserver):
    """Skips updates whose gradient is not finite, or far larger than those of the updates before.

    The gradient is that of all ranks together, so that they decide alike. A skipped update counts as an update of its
    round, and the learning rate moves on; weights, average and the optimizer's moments stay as they are.

    Args:
        most: the number of skipped updates in one round (in the whole fit, where there are no rounds) that ends the
            run; at least 1.
        explosion: the factor, above 1, by which the norm of a gradient must exceed the typical one to be skipped; the
            typical norm is the geometric mean over the last updates.
    """

    def __init__(self, most: int = 20, explosion: float = 1e4) -> None:
        check_number("most", most, whole=True, at_least=1)
        check_number("explosion", explosion, above=1, advice="a large number allows all finite gradients")
        self.most = most
        self.explosion = explosion
        self._skipped = 0
        self._typical: float | None = None  # the logarithm of the typical norm

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = float(_norm(parameters))
        if not math.isfinite(norm) and getattr(trainer.precision_plugin, "scaler", None) is not None:
            return  # the gradient scaler of half precision skips this update, and lowers its scale
        if self._is_good(norm):
            if norm > 0:
                typical = math.log(norm) if self._typical is None else self._typical
                self._typical = _DECAY * typical + (1 - _DECAY) * math.log(norm)
        else:
            for parameter in parameters:
                parameter.grad = None  # optimizers pass over parameters without a gradient
            self._skipped += 1
            rank_zero_warn(f"update {trainer.global_step} is skipped: the norm of its gradient is {norm:.3g}")
        if self._skipped:
            pl_module.log("train/skipped_updates", float(self._skipped))
        most, place = self.most, ""
        if isinstance(pl_module, LatentModule) and pl_module.current_budget is not None:
            most, place = min(most, pl_module.current_budget), f" {pl_module.place}"
        if self._skipped >= most:
            raise UserError(
                f"{self._skipped} updates had no usable gradient{place}, the last of norm {norm:.3g}; lower"
                " the learning rate and start another run, or raise most of BadUpdates"
            )

    def on_round_end(self, trainer: Trainer, pl_module: LightningModule, folder: Path) -> None:
        del trainer, pl_module, folder
        self._skipped, self._typical = 0, None

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self._skipped, "typical": self._typical}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._skipped, self._typical = state_dict["skipped"], state_dict["typical"]

    def _is_good(self, norm: float) -> bool:
        if not math.isfinite(norm):
            return False
        return self._typical is None or norm <= self.explosion * math.exp(self._typical)


def _norm(parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return whole(torch.nn.utils.get_total_norm(gradients))
