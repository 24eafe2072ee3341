"""The callbacks of every run of the command line: its record in the run folder, and its progress bar."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from bsa_lightning.common.errors import StoppedError, UserError
from bsa_lightning.common.files import remove_partial, write_json
from bsa_lightning.training.latent_module import RoundObserver
from bsa_lightning.training.run_files import LAST_ERROR
from bsa_lightning.training.run_folder import RunFolder
from bsa_lightning.training.wandb_run import WandbRun

_LONGEST = 500
"""The most characters of an error that are recorded."""


class RunProgressBar(TQDMProgressBar):
    """Lightning's progress bar without the version of the logger, which is a meaningless id of W&B here."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class RunRecord(Callback):
    """Records the configuration in the run folder, once model and data are known to fit together.

    A run that is refused before that leaves the folder as it was.

    Args:
        folder: the folder of the run.
        config: the resolved configuration of the run.
        fresh: whether to remove first what an earlier run has written there.
    """

    def __init__(self, folder: RunFolder, config: dict[str, Any], *, fresh: bool) -> None:
        self.folder = folder
        self.config = config
        self.fresh = fresh
        self._is_started = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        self._is_started = self.fresh
        if trainer.is_global_zero:
            remove_partial(self.folder.path)
            if self.fresh:
                self.folder.clear()
                self.folder.record(self.config)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records a resumed run again, once its checkpoint is known to fit."""
        del pl_module
        self._start(trainer)
        if trainer.is_global_zero and not self.fresh:
            self.folder.record(self.config)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        self._start(trainer)
        if trainer.is_global_zero and not self.folder.config():
            self.folder.record(self.config)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        if trainer.is_global_zero and not self.folder.config():
            self.folder.record(self.config)

    on_predict_start = on_fit_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Records why the run has ended, which ``lightning runs`` tells."""
        del pl_module
        if not (self._is_started and trainer.is_global_zero and self.folder.path.is_dir()):
            return
        text = " ".join(str(exception).split())
        if isinstance(exception, KeyboardInterrupt):
            text = "stopped by Ctrl-C"
        elif not isinstance(exception, UserError | StoppedError):
            text = f"{type(exception).__name__}: {text}"
        with suppress(OSError, UserError):  # the disk may be what is wrong
            stopped = isinstance(exception, KeyboardInterrupt | StoppedError)
            content = {"error": text[:_LONGEST], "stopped": stopped, "updates": trainer.global_step}
            write_json(self.folder.path / LAST_ERROR, content)

    def _start(self, trainer: Trainer) -> None:
        self._is_started = True
        if trainer.is_global_zero:
            (self.folder.path / LAST_ERROR).unlink(missing_ok=True)


class StudentRecord(RoundObserver):
    """Registers the student of each round with W&B."""

    def on_round_end(self, trainer: Trainer, pl_module: LightningModule, folder: Path) -> None:
        del pl_module
        for logger in trainer.loggers:
            if isinstance(logger, WandbRun):
                logger.log_student(folder)
