"""Stops all ranks after the same update on Ctrl-C or SIGTERM, which schedulers send before they take a machine away."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Trainer

from bsa_lightning.common.errors import StoppedError


class Interruption:
    """Records SIGTERM and Ctrl-C, and lets the ranks agree on when to stop.

    A second Ctrl-C stops at once, without a checkpoint: the update, or what is done between two of them, may take long.

    Lightning's own handler communicates with the other ranks while it handles the signal, and deadlocks with two ranks.

    Args:
        every: the number of updates from one communication between the ranks to the next, at least 1; each waits for
            the GPU.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every
        self._noted: int | None = None
        self._before: Any = None

    def listen(self) -> None:
        """Installs the signal handlers; called when training starts, after Lightning has installed its own."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)
            self._before = signal.signal(signal.SIGINT, self._note)

    def end(self) -> None:
        """Gives Ctrl-C back; called when training ends. Lightning gives back SIGTERM."""
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, self._before)
        self._before = None

    def stopped(self, step: int) -> StoppedError:
        """Returns the error that ends the run.

        Args:
            step: the number of updates so far.
        """
        name, code = ("Ctrl-C", 130) if self._noted == signal.SIGINT else ("SIGTERM", 143)
        return StoppedError(f"stopped by {name} after {step} updates; go on with --ckpt_path last", code)

    def agreed(self, trainer: Trainer, step: int) -> bool:
        """Returns whether any rank has received a signal; the same on all ranks.

        Args:
            trainer: the trainer of this rank.
            step: the number of updates so far, the same on all ranks.
        """
        if trainer.world_size == 1:
            return self._noted is not None
        if step % self.every:
            return False
        return trainer.strategy.reduce_boolean_decision(self._noted is not None, all=False)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._noted == signal.SIGINT:
                raise KeyboardInterrupt
            sys.stderr.write("\nstopping after this update; Ctrl-C again stops at once\n")
            sys.stderr.flush()
        self._noted = number
