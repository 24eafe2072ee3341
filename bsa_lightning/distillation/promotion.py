"""The callback that ends rounds: it decides when a round is over, and the module writes and promotes the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from bsa_lightning.distillation.rounds import Plan, Round
from bsa_lightning.training.latent_module import RoundObserver


class Ladder(Protocol):
    """The interface of a module that trains in rounds, for :class:`RoundPromotion`."""

    plan: Plan
    global_step: int
    has_pending_gradients: bool
    """Whether gradients are accumulated for the next update."""

    @property
    def current_round(self) -> Round:
        """The round that is trained now."""

    @property
    def is_last_round(self) -> bool:
        """Whether no round follows."""

    @property
    def updates_in_round(self) -> int:
        """Optimizer steps since the round began."""

    def finish_round(self) -> Path:
        """Writes the student of the current round and returns its folder; called on every rank."""

    def promote(self, folder: Path) -> None:
        """Makes the student, saved in ``folder``, the teacher of the next round."""


class RoundPromotion(Callback):
    """Ends a round at its update budget or when its validation error has stopped falling, and the fit after the last.

    It promotes at the start of a batch: the validation and the checkpoint at the end of a round still see the finished
    student, and a run that is resumed from that checkpoint promotes it again. (Hooks at the end of an epoch would lose
    a promotion on resume, since Lightning continues after them.) It does not promote while gradients are accumulated,
    which are those of the old student. The module brings the callback along (``configure_callbacks``).

    Args:
        error: the metric of the validation that must fall.
    """

    def __init__(self, error: str = "val/distillation_error") -> None:
        self._error = error
        self._best = float("inf")
        self._stale = 0
        self._validated_step: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ladder = _ladder(pl_module)
        if self._is_over(ladder) and ladder.is_last_round:
            trainer.should_stop = True  # the run was resumed from the checkpoint of its last update
            rank_zero_info(f"{trainer.default_root_dir} has all its {pl_module.global_step} updates already")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        del batch, batch_idx
        ladder = _ladder(pl_module)
        if self._is_over(ladder) and not ladder.is_last_round and not ladder.has_pending_gradients:
            folder = self._finish(trainer, pl_module)
            ladder.promote(folder)
            self._best, self._stale = float("inf"), 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        ladder = _ladder(pl_module)
        if self._is_over(ladder) and ladder.is_last_round:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ladder = _ladder(pl_module)
        error = trainer.callback_metrics.get(self._error)
        # Lightning validates once more when it stops, which must not reopen a round that is over.
        if ladder.plan.patience is None or error is None or trainer.sanity_checking or self._is_over(ladder):
            return
        if ladder.global_step == self._validated_step:  # within an accumulation, where no weight has changed
            return
        self._validated_step = ladder.global_step
        self._stale = 0 if error < self._best else self._stale + 1
        self._best = min(self._best, float(error))
        trainer.should_stop |= self._is_over(ladder) and ladder.is_last_round

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ladder = _ladder(pl_module)
        if self._is_over(ladder) and ladder.is_last_round:
            self._finish(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "stale": self._stale, "validated_step": self._validated_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self._stale = state_dict["best"], state_dict["stale"]
        self._validated_step = state_dict["validated_step"]

    def _is_over(self, ladder: Ladder) -> bool:
        spent = ladder.updates_in_round >= ladder.current_round.updates
        return spent or (ladder.plan.patience is not None and self._stale >= ladder.plan.patience)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> Path:
        folder = _ladder(pl_module).finish_round()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RoundObserver):
                callback.on_round_end(trainer, pl_module, folder)
        return folder


def _ladder(module: LightningModule) -> Ladder:
    return cast("Ladder", module)
