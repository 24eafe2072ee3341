"""The progress of a run as lines, for logs: updates of the whole run, rounds and losses."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from bsa_lightning.common.progress import Tenths
from bsa_lightning.training.latent_module import LatentModule


class ProgressLines(ProgressBar):
    """Writes a line to stderr at each tenth of the updates, and after 30 seconds without a line.

    It takes the place of the bar where stderr is not a terminal, since a bar would be redrawn thousands of times in the
    log of a job.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tenths = Tenths()
        self._start, self._first = time.monotonic(), 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        self._tenths.restart()
        self._start, self._first = time.monotonic(), trainer.global_step
        if total := _total(trainer, trainer.lightning_module):
            self._tenths.is_due(trainer.global_step, total)  # a resumed run has some tenths already

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        done, total = trainer.global_step, _total(trainer, pl_module)
        if not self._tenths.is_due(done, total):
            return
        of = f" of {total}" if total else ""
        rate = (done - self._first) / max(time.monotonic() - self._start, 1e-9)
        place = pl_module.place if isinstance(pl_module, LatentModule) else ""
        metrics = self.get_metrics(trainer, pl_module)
        logged = [f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float)]
        self._write(trainer, ", ".join([f"update {done}{of}", *filter(None, [place]), f"{rate:.3g} a second", *logged]))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del trainer, pl_module
        self._tenths.restart()

    def on_predict_batch_end(self, trainer: Trainer, *hook: Any) -> None:  # noqa: ANN401 - those of Lightning's hook
        batch_idx: int = hook[3]
        total = sum(int(number) for number in trainer.num_predict_batches if number != float("inf"))
        if self._tenths.is_due(batch_idx + 1, total):
            self._write(trainer, f"batch {batch_idx + 1} of {total}")

    def disable(self) -> None:
        """Does nothing: the lines are those of the first rank anyway."""

    def enable(self) -> None:
        """Does nothing."""

    def _write(self, trainer: Trainer, text: str) -> None:
        if trainer.is_global_zero:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


def _total(trainer: Trainer, module: LightningModule) -> int | None:
    """Returns the number of updates of the whole run; ``None`` if that is not known."""
    planned = module.planned_updates if isinstance(module, LatentModule) else None
    limits = [number for number in (planned or 0, trainer.max_steps) if number > 0]
    return min(limits, default=None)
