"""SIGTERM, which schedulers send before they take a machine away: all ranks stop after the same update."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from lightning.pytorch import Trainer


class Interruption:
    """Notes the signal and lets the ranks agree on it.

    Lightning's own handler talks to the other ranks while it handles the signal, and with two of them never ends.

    Args:
        every: updates after which the ranks ask each other; on a GPU each time waits for it.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every
        self._noted = False

    def listen(self) -> None:
        """Takes SIGTERM over; called when training starts, since Lightning takes it before."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def agreed(self, trainer: Trainer, step: int) -> bool:
        """Whether any rank was told to stop; the same answer on all of them."""
        if trainer.world_size == 1:
            return self._noted
        if step % self.every:
            return False
        return trainer.strategy.reduce_boolean_decision(self._noted, all=False)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._noted = True
