"""The uses of Lightning's private parts, and of torch's process group, each with the reason why nothing public does.

A new version of Lightning may break the functions of this file, and what ``cli/fit.py`` overrides of ``LightningCLI``;
``make endurance`` tests them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch import Trainer
from torch.distributed import Store
from torch.distributed.distributed_c10d import _get_default_store


@contextmanager
def before_the_batch(trainer: Trainer) -> Iterator[None]:
    """Returns a context in which the counters of the epoch are what they were before the current batch.

    A checkpoint that is saved at the start of a batch counts that batch as begun, so that Lightning would resume after
    it. No public hook comes after a batch with its validation and its logs, and before the start of the next.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    begun = progress.total.ready - progress.total.started  # type: ignore[attr-defined]
    last = progress.is_last_batch
    for counter in (progress.total, progress.current):
        counter.ready -= begun
    if begun:
        progress.is_last_batch = False
    try:
        yield
    finally:
        for counter in (progress.total, progress.current):
            counter.ready += begun
        progress.is_last_batch = last


def batches_that_stepped(trainer: Trainer) -> int:
    """Returns the step that Lightning passes to its loggers.

    A checkpoint holds it, but on resume Lightning (2.6) adds one to it, as if the batch after which the run was stopped
    had been trained again.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def set_batches_that_stepped(trainer: Trainer, count: int) -> None:
    """Corrects the step of the loggers after a resume; see :func:`batches_that_stepped`."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = count


def restart_optimizers(trainer: Trainer) -> None:
    """Makes new optimizers and learning rate schedules in the middle of a fit.

    The method is public, but not meant for this: Lightning itself calls it at the start of a fit only. Clearing the
    state of an optimizer would not do, since some optimizers keep a part of it in their parameter groups.
    """
    trainer.strategy.setup_optimizers(trainer)


def validate_after_this_batch(trainer: Trainer) -> int | float:
    """Makes Lightning validate when the current batch is done, whatever the interval between validations.

    There is no public way to ask for a validation; the attribute, a public one, is meant for Lightning itself.

    Returns:
        The interval, to be put back into ``trainer.val_check_batch`` when the validation starts.
    """
    interval = trainer.val_check_batch
    assert interval is not None  # a length of time is refused
    trainer.val_check_batch = 1
    return interval


def release_child_processes() -> None:
    """Stops Lightning from killing this process when another rank has died, before it can report which rank.

    Lightning's launcher starts a thread for that, and no setting turns it off.
    """
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._child_processes = []


def rendezvous_store() -> Store:
    """Returns a connection to the store of the process group, which torch has no public name for."""
    return _get_default_store().clone()  # type: ignore[attr-defined]
