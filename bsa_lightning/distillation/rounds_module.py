"""The base class of modules that train in rounds: which round it is, how long it lasts, and its learning rate."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from bsa_lightning.distillation import adapters
from bsa_lightning.distillation.clip_errors import ClipErrors
from bsa_lightning.distillation.promotion import RoundPromotion
from bsa_lightning.distillation.round_budget import RoundBudget
from bsa_lightning.distillation.round_judge import RoundJudge
from bsa_lightning.distillation.rounds import Plan, Round
from bsa_lightning.models.base import Denoiser
from bsa_lightning.training.latent_module import LatentModule, OptimizerFactory
from bsa_lightning.training.lightning_internals import restart_optimizers


class RoundsModule(LatentModule, ABC):
    """A module that trains in the rounds of a plan.

    It brings along the callbacks that decide how long a round lasts and that end it.

    Args:
        teacher: the first teacher: a model folder, a hub id, or "tiny" or "tiny-flow", which are built in.
        compiled: whether to run the networks through ``torch.compile``.
        plan: the rounds.
        optimizer: makes the optimizer of the learner's parameters, anew in each round.
    """

    def __init__(self, teacher: str, *, compiled: bool, plan: Plan, optimizer: OptimizerFactory) -> None:
        super().__init__(teacher, compiled=compiled)
        self.plan = plan
        self.optimizer = optimizer
        self.budget = RoundBudget(plan)
        self.clip_errors = ClipErrors()
        self.round = 0
        self.round_start = 0

    @property
    def current_round(self) -> Round:
        """The round that is trained now."""
        return self.plan.rounds[self.round]

    @property
    def is_last_round(self) -> bool:
        return self.round == len(self.plan.rounds) - 1

    @property
    def updates_in_round(self) -> int:
        """Optimizer steps since the round began."""
        return self.global_step - self.round_start

    @property
    def is_round_over(self) -> bool:
        """Whether the current round has had all its updates."""
        return self.budget.is_over(self.updates_in_round)

    @property
    def current_budget(self) -> int:
        return self.budget.planned

    @property
    def planned_updates(self) -> int:
        return self.round_start + self.budget.planned + sum(r.updates for r in self.plan.rounds[self.round + 1 :])

    @property
    def place(self) -> str:
        return f"in round {self.round + 1}"

    @property
    def trained_networks(self) -> Mapping[str, Denoiser]:
        """The networks that change in a round: the learner, and its average if there is one."""
        average: dict[str, Denoiser] = {} if self.ema is None else {"average": self.ema.average}  # type: ignore[dict-item]
        return {"student": self.learner, **average}

    def shared_weights(self, network: Denoiser) -> set[str]:  # noqa: ARG002
        """Returns the names of the weights of a network that are another's, which no round changes."""
        return set()

    def configure_callbacks(self) -> list[Callback]:
        return [RoundJudge(), RoundPromotion()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(adapters.trained(self.learner))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.budget.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def begin_next_round(self) -> None:
        """Counts the round, and makes its optimizer; must be called on every rank."""
        self.round += 1
        self.round_start = self.global_step
        self.budget.begin(self.current_round)
        restart_optimizers(self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["round"], checkpoint["round_start"] = self.round, self.round_start
        if self.budget.is_adaptive:
            checkpoint["budget"] = self.budget.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.round, self.round_start = checkpoint["round"], checkpoint["round_start"]
        self.budget.begin(self.current_round)
        if self.budget.is_adaptive:
            self.budget.load_state_dict(checkpoint["budget"])
