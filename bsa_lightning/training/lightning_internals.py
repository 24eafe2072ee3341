"""The one place that reaches into Lightning and torch where they offer no public way; each function says why.

A new version of Lightning may break what is here, and nothing else: ``make endurance`` tells.
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
    """Sets the counters of the epoch to what they were before the batch that has begun, if one has, for a checkpoint.

    A checkpoint that is saved at the start of a batch counts that batch as begun, and Lightning goes on after it. There
    is no public hook between the end of a batch, its validation and its logs, and the start of the next.
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
    """The step that Lightning's loggers are given.

    A checkpoint holds it, but Lightning counts the batch after which it thinks it was stopped once more.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def set_batches_that_stepped(trainer: Trainer, count: int) -> None:
    """Puts the step of the loggers right after a resume; see :func:`batches_that_stepped`."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = count


def restart_optimizers(trainer: Trainer) -> None:
    """Makes optimizers and learning rate schedules anew, in the middle of a fit.

    Lightning does so itself, but only at the start of a fit. Clearing an optimizer's state instead would miss what some
    keep in their parameter groups.
    """
    trainer.strategy.setup_optimizers(trainer)


def release_child_processes() -> None:
    """Stops Lightning from killing this process as soon as another rank has died, before it can say which.

    Lightning's launcher starts a thread for that, and has no setting to leave it out.
    """
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._child_processes = []


def rendezvous_store() -> Store:
    """A connection to the store through which all ranks found each other; torch has no public name for it."""
    return _get_default_store().clone()  # type: ignore[attr-defined]
