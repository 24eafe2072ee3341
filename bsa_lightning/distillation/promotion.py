"""The callback that ends rounds: when the budget of a round is spent, the module writes and promotes the student."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from bsa_lightning.training.latent_module import RoundObserver


class Ladder(Protocol):
    """The interface of a module that trains in rounds, for :class:`RoundPromotion`."""

    has_pending_gradients: bool
    """Whether gradients are accumulated for the next update."""

    @property
    def is_round_over(self) -> bool:
        """Whether the current round has had all its updates."""

    @property
    def is_last_round(self) -> bool:
        """Whether no round follows."""

    def finish_round(self) -> Path:
        """Writes the student of the current round and returns its folder; called on every rank."""

    def promote(self, folder: Path) -> None:
        """Makes the student, saved in ``folder``, the teacher of the next round."""


class RoundPromotion(Callback):
    """Ends a round when its budget says so, and the fit after the last.

    It promotes at the start of a batch: the validation and the checkpoint at the end of a round still see the finished
    student, and a run that is resumed from that checkpoint promotes it again. (Hooks at the end of an epoch would lose
    a promotion on resume, since Lightning continues after them.) It does not promote while gradients are accumulated,
    which are those of the old student. The module brings the callback along (``configure_callbacks``).
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ladder = _ladder(pl_module)
        if ladder.is_round_over and ladder.is_last_round:
            trainer.should_stop = True  # the run was resumed from the checkpoint of its last update
            rank_zero_info(f"{trainer.default_root_dir} has all its {pl_module.global_step} updates already")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        del batch, batch_idx
        ladder = _ladder(pl_module)
        if ladder.is_round_over and not ladder.is_last_round and not ladder.has_pending_gradients:
            folder = self._finish(trainer, pl_module)
            ladder.promote(folder)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        ladder = _ladder(pl_module)
        if ladder.is_round_over and ladder.is_last_round:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ladder = _ladder(pl_module)
        if ladder.is_round_over and ladder.is_last_round:
            self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> Path:
        folder = _ladder(pl_module).finish_round()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RoundObserver):
                callback.on_round_end(trainer, pl_module, folder)
        return folder


def _ladder(module: LightningModule) -> Ladder:
    return cast("Ladder", module)
