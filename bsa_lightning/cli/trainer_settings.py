"""Checks of settings that Lightning's trainer accepts, but that no training can use."""

from __future__ import annotations

from jsonargparse import Namespace
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number

_MOST_DEVICES = 1024


def check_trainer(trainer: Namespace, *, fits: bool) -> None:
    """Refuses settings that are out of their range, and for ``fit`` those with which nothing would be trained.

    Args:
        trainer: the settings of the trainer.
        fits: whether the command is ``fit``.

    Raises:
        UserError: if there is such a setting.
    """
    if trainer.default_root_dir is not None:
        raise UserError(
            f"trainer.default_root_dir is {trainer.default_root_dir}, but a run writes to the folder that --run names;"
            " leave it out"
        )
    if trainer.enable_checkpointing is not None:
        raise UserError(
            f"trainer.enable_checkpointing is {str(trainer.enable_checkpointing).lower()}, but a run always keeps the"
            " checkpoint that it goes on from, and no other; leave it out, and list ModelCheckpoint in"
            " trainer.callbacks for others"
        )
    if str(trainer.devices).isdigit():  # or a list of them, or "auto"
        check_number("trainer.devices", int(trainer.devices), at_most=_MOST_DEVICES, advice="each gets a process")
    if trainer.gradient_clip_val is not None:
        check_number("trainer.gradient_clip_val", trainer.gradient_clip_val, at_least=0)
    check_number("trainer.accumulate_grad_batches", trainer.accumulate_grad_batches, whole=True, at_least=1)
    check_number("trainer.log_every_n_steps", trainer.log_every_n_steps, whole=True, at_least=0)
    if trainer.check_val_every_n_epoch is not None:
        check_number("trainer.check_val_every_n_epoch", trainer.check_val_every_n_epoch, whole=True, at_least=1)
    if isinstance(trainer.val_check_interval, int | float):  # or a length of time
        check_number("trainer.val_check_interval", trainer.val_check_interval, above=0)
    if fits and 0 in (trainer.max_steps, trainer.max_epochs, trainer.limit_train_batches):
        name = next(n for n in ("max_steps", "max_epochs", "limit_train_batches") if getattr(trainer, n) == 0)
        raise UserError(f"trainer.{name} is 0, so that nothing would be trained; leave it out, or raise it")


def check_gpus(trainer: Namespace) -> None:
    """Refuses a machine without the GPUs that the settings, or the recipe that they are from, ask for.

    Raises:
        UserError: if there are none, or fewer.
    """
    if trainer.accelerator not in ("gpu", "cuda"):
        return
    there = CUDAAccelerator.auto_device_count()
    if not there and not (trainer.accelerator == "gpu" and MPSAccelerator.is_available()):
        raise UserError(
            f"trainer.accelerator is {trainer.accelerator}, but torch finds no GPU on this machine; run it where there"
            " is one, or leave the recipe out that names it (as --config trainer/gpu-80gb does)"
        )
    if str(trainer.devices).isdigit() and there < int(trainer.devices) and there:
        raise UserError(
            f"trainer.devices is {trainer.devices}, but torch finds {there} GPU{'s' * (there > 1)} on this machine;"
            f" name at most {there}"
        )
