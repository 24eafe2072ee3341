"""Checks of settings that Lightning's trainer accepts, but that no training can use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number

TRAINER_DEFAULTS = {
    "use_distributed_sampler": False,  # the data module shards by itself, so that a resume is exact
    "max_epochs": -1,  # the plan of rounds, or max_steps, says when to stop
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "enable_model_summary": False,
}
"""The defaults that differ from Lightning's."""

_LIMITS: dict[str, dict[str, Any]] = {
    "devices": {"at_most": 1024, "advice": "each gets a process"},
    "gradient_clip_val": {"at_least": 0},
    "accumulate_grad_batches": {"whole": True, "at_least": 1},
    "log_every_n_steps": {"whole": True, "at_least": 0},
    "check_val_every_n_epoch": {"whole": True, "at_least": 1},
    "val_check_interval": {"above": 0},
}
"""The ranges of settings of the trainer."""


def trainer_mistakes(trainer: Namespace, *, fits: bool) -> Iterator[UserError]:
    """Yields an error for each setting that is out of its range, and for ``fit`` for one that ends it at once.

    Args:
        trainer: the settings of the trainer.
        fits: whether the command is ``fit``.
    """
    if trainer.default_root_dir is not None:
        yield UserError(
            f"trainer.default_root_dir is {trainer.default_root_dir}, but a run writes to the folder that --run names;"
            " leave it out"
        )
    if trainer.enable_checkpointing is not None:
        yield UserError(
            f"trainer.enable_checkpointing is {str(trainer.enable_checkpointing).lower()}, but a run always keeps the"
            " checkpoint that it goes on from, and no other; leave it out, and list ModelCheckpoint in"
            " trainer.callbacks for others"
        )
    for name, limits in _LIMITS.items():
        value = trainer[name]
        if name == "devices":  # or a list of them, or "auto"
            value = int(value) if str(value).isdigit() else None
        if isinstance(value, int | float):  # or none, or a length of time
            try:
                check_number(f"trainer.{name}", value, **limits)
            except UserError as error:
                yield error
    interval = trainer.val_check_interval
    if isinstance(interval, float) and math.isfinite(interval):
        yield from _interval_mistakes(interval, counts_batches=trainer.check_val_every_n_epoch is None)
    if fits and trainer.fast_dev_run:
        yield UserError(
            f"trainer.fast_dev_run is {str(trainer.fast_dev_run).lower()}, but a run keeps all that it trains, so that"
            " students of a few updates would be taken for whole ones; try the configuration with --config"
            " trainer/debug and a --run of its own"
        )
    if fits and 0 in (trainer.max_steps, trainer.max_epochs, trainer.limit_train_batches):
        name = next(n for n in ("max_steps", "max_epochs", "limit_train_batches") if getattr(trainer, n) == 0)
        yield UserError(f"trainer.{name} is 0, so that nothing would be trained; leave it out, or raise it")


def _interval_mistakes(interval: float, *, counts_batches: bool) -> Iterator[UserError]:
    """Yields an error for an interval between validations that is neither a share of an epoch nor whole batches."""
    told = f"trainer.val_check_interval is {interval:g}"
    if counts_batches:
        yield UserError(
            f"{told}, but must be a whole number of batches where trainer.check_val_every_n_epoch is null; give one, or"
            " set that to 1 for a share of an epoch"
        )
    elif interval > 1:
        yield UserError(f"{told}, but must be a share of an epoch, at most 1.0, or a whole number of batches")


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


def listed(given: Any) -> list[Any]:  # noqa: ANN401 - Lightning takes one object, a list of them, or None
    """The objects of a setting of the trainer, as a list."""
    return given if isinstance(given, list) else [] if given is None else [given]
