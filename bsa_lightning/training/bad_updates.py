"""Updates that would ruin a student: skipped and counted, and the round stopped after too many."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.training.latent_module import LatentModule, RoundObserver

_DECAY = 0.98
"""Of the typical gradient: it averages over some fifty updates."""


class BadUpdates(RoundObserver):
    """Skips an update whose gradient is not finite, or far larger than those before it.

    The gradient is that of all ranks together, so that they decide alike. A skipped update counts as one of its round
    and moves the learning rate on; weights, average and the optimizer's moments stay as they are.

    Args:
        most: so many in one round (of a teacher's training: in all of it) end the run; at least 1.
        explosion: how many times the typical norm (the geometric mean of late) is too large; above 1.
    """

    def __init__(self, most: int = 20, explosion: float = 1e4) -> None:
        check_number("most", most, whole=True, at_least=1)
        check_number("explosion", explosion, above=1, advice="a large number allows all finite gradients")
        self.most = most
        self.explosion = explosion
        self._skipped = 0
        self._typical: float | None = None  # logarithm

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = float(_norm(parameters))
        if not math.isfinite(norm) and getattr(trainer.precision_plugin, "scaler", None) is not None:
            return  # half precision's own scaler skips it, and scales less from then on
        if self._is_good(norm):
            if norm > 0:
                typical = math.log(norm) if self._typical is None else self._typical
                self._typical = _DECAY * typical + (1 - _DECAY) * math.log(norm)
        else:
            for parameter in parameters:
                parameter.grad = None  # which optimizers pass over
            self._skipped += 1
            rank_zero_warn(f"update {trainer.global_step} is skipped: the norm of its gradient is {norm:.3g}")
        if self._skipped:
            pl_module.log("train/skipped_updates", float(self._skipped))
        most, place = self.most, ""
        if isinstance(pl_module, LatentModule) and pl_module.current_budget is not None:
            most, place = min(most, pl_module.current_budget), pl_module.place
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
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
