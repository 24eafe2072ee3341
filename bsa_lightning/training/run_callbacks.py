"""The callbacks of every run of the command line: its record in the run folder, and its progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from bsa_lightning.common.files import remove_partial
from bsa_lightning.training.latent_module import RoundObserver
from bsa_lightning.training.run_folder import RunFolder
from bsa_lightning.training.wandb_run import WandbRun


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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        if trainer.is_global_zero:
            remove_partial(self.folder.path)
            if self.fresh:
                self.folder.clear()
                self.folder.record(self.config)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records a resumed run again, once its checkpoint is known to fit."""
        del pl_module
        if trainer.is_global_zero and not self.fresh:
            self.folder.record(self.config)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        if trainer.is_global_zero and not self.folder.config():
            self.folder.record(self.config)

    on_validation_start = on_test_start
    on_predict_start = on_fit_start


class StudentRecord(RoundObserver):
    """Registers the student of each round with W&B."""

    def on_round_end(self, trainer: Trainer, pl_module: LightningModule, folder: Path) -> None:
        del pl_module
        for logger in trainer.loggers:
            if isinstance(logger, WandbRun):
                logger.log_student(folder)
