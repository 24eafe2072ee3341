"""The checkpoint from which a run is resumed: when it is written, and everything that has to be in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.training.checkpoint_file import CheckpointFile
from bsa_lightning.training.interruption import Interruption
from bsa_lightning.training.latent_module import RoundObserver
from bsa_lightning.training.lightning_internals import (
    batches_that_stepped,
    before_the_batch,
    set_batches_that_stepped,
)
from bsa_lightning.training.metrics_file import MetricsFile
from bsa_lightning.training.run_folder import RunFolder
from bsa_lightning.training.wandb_run import WandbRun


class ResumePoint(RoundObserver):
    """Writes ``checkpoints/last.ckpt`` before the first update, then regularly, after each round, and at the end.

    The checkpoint is written when a batch begins: the logs and the validation of the update before are on disk by then,
    and a promotion that follows is repeated on resume. On resume, ``metrics.csv`` is cut back to what it was at the
    checkpoint, so that no row is missing or there twice.

    Args:
        file: the path of the checkpoint.
        reader: the plugin that reads the checkpoint when the run is resumed.
        folder: the folder of the run, which refuses settings that differ from those of the checkpoint.
        settings: the settings that decide what the students become, by dotted key.
        every: the number of updates from one checkpoint to the next, at least 1.
        interruption: tells before each batch whether the run has been asked to stop.

    Raises:
        UserError: if ``every`` is below 1.
    """

    def __init__(
        self,
        file: Path,
        *,
        reader: CheckpointFile,
        folder: RunFolder,
        settings: dict[str, Any],
        every: int,
        interruption: Interruption,
    ) -> None:
        check_number("checkpoint_every", every, whole=True, at_least=1, advice="it counts updates")
        self.file = file
        self.reader, self.folder, self.settings = reader, folder, settings
        self.every = every
        self.interruption = interruption
        self._seen: int | None = None
        self._written: int | None = None
        self._logged: dict[str, Any] = {}
        self._stepped: int | None = None
        self._is_fit = False
        self._is_resumed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        del trainer, pl_module
        self._is_fit = stage == "fit"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interruption.listen()
        self.reader.unproven = None
        if self._is_resumed and self._stepped is None:
            raise UserError(
                "the checkpoint that --ckpt_path names is one of ModelCheckpoint, from which a run does not go on as it"
                " would have; go on with --ckpt_path last"
            )
        if self._is_resumed:
            self._seen = self._written = pl_module.global_step
            if trainer.is_global_zero and self._logged:
                self._rewind(trainer.loggers)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del trainer, pl_module
        self.reader.unproven = None

    on_test_start = on_validation_start

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        del batch, batch_idx
        if self._stepped is not None:
            set_batches_that_stepped(trainer, self._stepped)
            self._stepped = None
        step = pl_module.global_step
        if step == self._seen:  # gradients are being accumulated, so that there was no update since
            return
        self._seen = step
        stop = self.interruption.agreed(trainer, step)
        if stop or step % self.every == 0:
            self._write(trainer, step)
        if stop:
            raise self.interruption.stopped(step)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        del trainer, pl_module, stage
        self.interruption.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        del trainer, pl_module, exception
        self.interruption.end()

    def on_round_end(self, trainer: Trainer, pl_module: LightningModule, folder: Path) -> None:
        """Writes the checkpoint before the round is scored, which takes long."""
        del folder
        self._write(trainer, pl_module.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the checkpoint of the last update, whatever ``every`` is."""
        self._write(trainer, pl_module.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"logged": self._logged, "stepped": self._stepped, "settings": self.settings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._logged, self._stepped, self._is_resumed = state_dict["logged"], state_dict["stepped"], True
        # The run's own config.yaml may have been edited since. A validation may have data and precision of its own.
        if "settings" in state_dict:
            section = "" if self._is_fit else "model."
            now, then = (
                {key: value for key, value in settings.items() if key.startswith(section)}
                for settings in (self.settings, state_dict["settings"])
            )
            self.folder.refuse_other(now, then)
        else:
            rank_zero_warn(f"{self.file} is of an earlier version and holds no settings, so that they are not compared")

    def _rewind(self, loggers: Sequence[Logger]) -> None:
        num_removed = sum(logger.rewind(self._logged) for logger in loggers if isinstance(logger, MetricsFile))
        for logger in loggers:
            if isinstance(logger, WandbRun):
                logger.skip(num_removed)

    def _write(self, trainer: Trainer, step: int) -> None:
        if step == self._written:
            return
        self._written = step
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile) and trainer.is_global_zero:
                self._logged = logger.position()
        self._stepped = batches_that_stepped(trainer)
        with before_the_batch(trainer):
            trainer.save_checkpoint(self.file, weights_only=False)  # with the optimizer's state and the loops
        self._stepped = None
