"""Stops all ranks after the same update on SIGTERM, which schedulers send before they take a machine away."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from lightning.pytorch import Trainer


class Interruption:
    """Records SIGTERM, and lets the ranks agree on when to stop.

    Lightning's own handler communicates with the other ranks while it handles the signal, and deadlocks with two ranks.

    Args:
        every: the number of updates from one communication between the ranks to the next, at least 1; each waits for
            the GPU.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every
        self._noted = False

    def listen(self) -> None:
        """Installs the signal handler; called when training starts, after Lightning has installed its own."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def agreed(self, trainer: Trainer, step: int) -> bool:
        """Returns whether any rank has received SIGTERM; the same on all ranks.

        Args:
            trainer: the trainer of this rank.
            step: the number of updates so far, the same on all ranks.
        """
        if trainer.world_size == 1:
            return self._noted
        if step % self.every:
            return False
        return trainer.strategy.reduce_boolean_decision(self._noted, all=False)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._noted = True
