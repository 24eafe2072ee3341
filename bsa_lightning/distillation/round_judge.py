"""The callback that judges adaptive rounds by their validations, and keeps their best weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.datamodule import AudioCapsLatents
from bsa_lightning.distillation.clip_errors import ClipErrors
from bsa_lightning.distillation.round_budget import RoundBudget
from bsa_lightning.training.ema import restore, snapshot
from bsa_lightning.training.lightning_internals import restart_optimizers, validate_after_this_batch


class Judged(Protocol):
    """The interface of a module whose rounds are judged, for :class:`RoundJudge`."""

    budget: RoundBudget
    """What decides how many updates a round takes."""
    clip_errors: ClipErrors
    """The trajectory errors of the validation."""
    has_pending_gradients: bool
    """Whether gradients are accumulated for the next update."""

    @property
    def updates_in_round(self) -> int:
        """Optimizer steps since the round began."""

    @property
    def is_round_over(self) -> bool:
        """Whether the current round has had all its updates."""

    @property
    def trained_networks(self) -> Mapping[str, nn.Module]:
        """The networks that change in a round: the student, and its average if there is one."""

    def shared_weights(self, network: Any) -> set[str]:  # noqa: ANN401 - one of the trained networks
        """Returns the names of the weights of a network that are another's, which no round changes."""

    @property
    def data(self) -> AudioCapsLatents:
        """The data module of the trainer."""


class RoundJudge(Callback):
    """Lets the budget of an adaptive round decide at each validation, and does what it decides.

    Validations within an accumulation are not judged, and one is added where the budget cannot go on without it. All
    ranks have the errors of all clips, and decide alike. The best weights of the round, of the student and its average,
    are in the CPU's memory (on the devices if they are sharded), and in the checkpoint with all that was decided, so
    that a resumed run decides the same. Does nothing in a plan with fixed rounds.
    """

    def __init__(self) -> None:
        self._judged_on: dict[str, Any] = {}
        self._interval: int | float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses settings of validations by which a round cannot be judged.

        Raises:
            UserError: if there is one.
        """
        if _judged(pl_module).budget.is_adaptive and stage == "fit":
            for mistake in _mistakes(trainer, _judged(pl_module).data):
                raise UserError(f"{mistake}, or leave out patience and most_updates of the plan")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses to compare with validations that had other clips or noise.

        Raises:
            UserError: if the run is resumed within a round on other clips, or on another number of devices.
        """
        module = _judged(pl_module)
        if not module.budget.is_adaptive:
            return
        reader = module.data.val_reader
        ours = {"clips": None if reader is None else str(reader.index["clips"]), "devices": trainer.world_size}
        then = self._judged_on if module.budget.best_weights and not module.is_round_over else ours
        if then["devices"] != ours["devices"]:
            raise UserError(
                f"the run is on {ours['devices']} devices and was on {then['devices']}, where validations have other"
                " noise, so that they cannot be compared with those of the round so far; go on with as many as before"
            )
        if then["clips"] != ours["clips"]:
            raise UserError(
                "data.val holds other clips than the round was validated on; name the folder that has those"
            )
        self._judged_on = ours

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        module = _judged(pl_module)
        if not module.has_pending_gradients and module.budget.must_validate(module.updates_in_round):
            self._interval = validate_after_this_batch(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        if self._interval is not None:
            trainer.val_check_batch, self._interval = self._interval, None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judges the round, on every rank."""
        module = _judged(pl_module)
        if not module.budget.is_adaptive:
            return
        with torch.inference_mode(False):  # tensors that are made in it cannot be updated outside of it
            errors = module.clip_errors.compute()
            module.clip_errors.reset()
            if trainer.sanity_checking or trainer.state.fn != "fit" or module.has_pending_gradients:
                return
            verdict = module.budget.judge(module.updates_in_round, errors)
            if verdict is None:
                return
            networks = module.trained_networks
            if verdict.is_best:
                module.budget.best_weights = {
                    name: snapshot(network, without=module.shared_weights(network))
                    for name, network in networks.items()
                }
            if verdict.is_rolled_back:
                for name, network in networks.items():
                    restore(network, module.budget.best_weights[name])
                restart_optimizers(trainer)
            for name, number in verdict.numbers.items():
                pl_module.log(f"val/{name}", number, batch_size=1, sync_dist=True)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._judged_on)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._judged_on = dict(state_dict)


def _judged(module: LightningModule) -> Judged:
    return cast("Judged", module)


def _mistakes(trainer: Trainer, data: AudioCapsLatents) -> Iterator[str]:
    """Yields what keeps the validations of a trainer from judging a round."""
    if data.val_reader is None:
        yield "data.val is None, but an adaptive round is judged by validations; name the latents to validate on"
    elif min(data.num_val_clips, len(data.val_reader)) < 2:
        yield "data.val has one clip to validate on, but an interval needs two; name more, or raise data.num_val_clips"
    if trainer.limit_val_batches == 0:
        yield "trainer.limit_val_batches is 0, but an adaptive round is judged by validations; raise it"
    if trainer.check_val_every_n_epoch not in (None, 1):
        yield (
            f"trainer.check_val_every_n_epoch is {trainer.check_val_every_n_epoch}, but an adaptive round is validated"
            " where it decides; set it to null, which counts batches over epochs, or to 1"
        )
    if getattr(trainer, "val_check_interval", None) is None:  # Lightning sets it for numbers only
        yield (
            "trainer.val_check_interval is a length of time, but an adaptive round must be validated after the same"
            " updates on every machine; give a number of batches"
        )
