"""When a round ends: the callback notices, the module acts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.distillation.plan import Round
from bsa_lightning.errors import UserError


class RoundObserver(Callback, ABC):
    """A callback that wants to know when a round's student is finished and saved."""

    @abstractmethod
    def on_round_end(self, trainer: Trainer, module: ProgressiveDistillation, round_: Round, folder: Path) -> None:
        """Called on every rank, after the student's folder is written and before it is promoted."""


class RoundPromotion(Callback):
    """Ends a round at its update budget, or when its validation error has stopped falling; stops after the last.

    It acts at the start of a batch, guarded by the step at which the round began: epoch hooks lose a promotion on
    resume, and so the validation and the checkpoint at the boundary still see the finished student of the round.
    """

    def __init__(self) -> None:
        self._best = float("inf")
        self._stale = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        del trainer, stage
        _distillation(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = _distillation(pl_module)
        if self._is_over(module) and module.is_last_round:
            trainer.should_stop = True  # resumed from the checkpoint of the very last update
            rank_zero_info(f"{module.run_folder} has all its {module.global_step} updates already")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        del batch, batch_idx
        module = _distillation(pl_module)
        if self._is_over(module) and not module.is_last_round:
            folder = self._finish(trainer, module)
            module.promote(folder)
            self._best, self._stale = float("inf"), 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        module = _distillation(pl_module)
        if self._is_over(module) and module.is_last_round:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = _distillation(pl_module)
        error = trainer.callback_metrics.get("val/distillation_error")
        # Lightning validates once more when it stops: what is over stays so, whatever that one says.
        if module.plan.patience is None or error is None or trainer.sanity_checking or self._is_over(module):
            return
        self._stale = 0 if error < self._best else self._stale + 1
        self._best = min(self._best, float(error))
        trainer.should_stop |= self._is_over(module) and module.is_last_round

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = _distillation(pl_module)
        if self._is_over(module) and module.is_last_round:
            self._finish(trainer, module)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "stale": self._stale}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self._stale = state_dict["best"], state_dict["stale"]

    def _is_over(self, module: ProgressiveDistillation) -> bool:
        spent = module.updates_in_round >= module.current_round.updates
        return spent or (module.plan.patience is not None and self._stale >= module.plan.patience)

    def _finish(self, trainer: Trainer, module: ProgressiveDistillation) -> Path:
        round_ = module.current_round
        folder = module.finish_round()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RoundObserver):
                callback.on_round_end(trainer, module, round_, folder)
        return folder


def _distillation(module: LightningModule) -> ProgressiveDistillation:
    if not isinstance(module, ProgressiveDistillation):
        raise UserError(
            f"model is {type(module).__name__}, but RoundPromotion works on ProgressiveDistillation; drop it"
        )
    return module
