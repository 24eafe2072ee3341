"""``lightning fit|validate|test|predict``: Lightning's own command line, with a run folder around it."""

from __future__ import annotations

import logging
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar, TQDMProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from bsa_lightning.commands import classes
from bsa_lightning.commands.messages import unknown_option
from bsa_lightning.commands.metrics_file import MetricsFile
from bsa_lightning.commands.plan import print_plan
from bsa_lightning.commands.run_folder import RunFolder
from bsa_lightning.errors import UserError

TRAINER_DEFAULTS = {
    "use_distributed_sampler": False,  # the data module shards by itself, so that a resume is exact
    "max_epochs": -1,  # the plan of rounds, or max_steps, says when to stop
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "enable_model_summary": False,
}

NEEDLESS_WARNINGS = (
    r"Found \d+ module\(s\) in eval mode",  # the teacher, on purpose
    r"The '\w+' does not have many workers",  # latents are memory-mapped: reading ahead gains nothing
    r"The number of training batches \(\d+\) is smaller than the logging interval",  # short epochs, long runs
    r"Checkpoint directory .* exists and is not empty",  # a resumed run
    r"\s+(By default only one Jsonargparse|``instantiate_classes``)",  # Lightning's command line
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning beside torch 2.11
)

_NOT_RECORDED = ("plan", "ckpt_path", "overwrite", "weights_only", "verbose", "return_predictions")


def run(words: list[str]) -> None:
    """Runs the subcommand that ``sys.argv`` names; other ranks are started from the same words."""
    del words
    for message in NEEDLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    # Advertisements for cloud services.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    try:
        Command()
    except MisconfigurationException as error:
        raise UserError(str(error)) from error


class Command(LightningCLI):
    """Any LightningModule with any LightningDataModule, in a run folder."""

    def __init__(self) -> None:
        jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
        classes.register()
        settings = {"exit_on_error": False, "parser_mode": "omegaconf+"}
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_callback=None,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            seed_everything_default=0,
            parser_kwargs={**settings, **{name: dict(settings) for name in self.subcommands()}},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str, required=True, help="folder of the run, such as runs/demo")
        parser.add_argument("--plan", action="store_true", help="fit: print what an update costs, load nothing, stop")
        parser.add_argument("--overwrite", type=bool, default=False, help="fit, predict: replace the run that is there")
        parser.add_argument(
            "--wandb", type=Literal["offline", "online", "disabled"], default="offline", help="Weights & Biases"
        )
        parser.add_argument(
            "--checkpoint_every", type=int, default=100, help="updates between two checkpoints to resume from"
        )

    def before_instantiate_classes(self) -> None:
        if self._get(self.config, "plan"):
            if self.subcommand != "fit":
                raise UserError(f"--plan is given, but only fit can be planned, not {self.subcommand}; leave it out")
            print_plan(self._parser(self.subcommand), self.config[self.subcommand])
            raise SystemExit(0)
        self.resumed = self._get(self.config, "ckpt_path") is not None
        fresh = self.subcommand == "predict" or (self.subcommand == "fit" and not self.resumed)
        self.folder = RunFolder(Path(self._get(self.config, "run")), fresh=fresh)
        # Other ranks start when the first has made the folder.
        if fresh:
            rank_zero_only(self.folder.refuse_if_used)(overwrite=self._get(self.config, "overwrite"))
        self.trainer_defaults["callbacks"] = [
            _Record(self.folder, self._dumped(), fresh=fresh),
            ModelCheckpoint(
                self.folder.path / "checkpoints",
                monitor=None,
                save_top_k=0,
                save_last=True,
                every_n_train_steps=self._get(self.config, "checkpoint_every"),
            ),
        ]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - Lightning's signature
        trainer = self._get(self.config_init, "trainer")
        own: dict[str, Any] = {"default_root_dir": self.folder.path}
        if trainer.logger is not False:
            given = [] if trainer.logger in (None, True) else trainer.logger
            own["logger"] = [*self._loggers(), *(given if isinstance(given, list) else [given])]
        own_bar = any(isinstance(callback, ProgressBar) for callback in trainer.callbacks or [])
        if trainer.enable_progress_bar is not False and not own_bar:
            # Rich's, which Lightning prefers, redraws in logs and counts endless epochs as -2.
            self.trainer_defaults["callbacks"].append(TQDMProgressBar(refresh_rate=10))
        return super().instantiate_trainer(**own, **kwargs)

    def _loggers(self) -> list[Logger]:
        loggers: list[Logger] = []
        if self.subcommand != "validate":  # which says what it finds, and adds nothing to the run
            loggers.append(MetricsFile(self.folder.path, resumed=self.resumed and self.subcommand == "fit"))
        mode = self._get(self.config, "wandb")
        if mode != "disabled":
            if mode == "offline":
                import wandb

                wandb.setup(wandb.Settings(silent=True, mode="offline"))
            run, config = self.folder.path.resolve(), self._dumped()
            run.mkdir(parents=True, exist_ok=True)
            loggers.append(
                WandbLogger(
                    project="bsa-lightning",
                    name=run.name,
                    group=run.parent.name,
                    id=self.folder.wandb_id,
                    save_dir=run,
                    offline=mode == "offline",
                    config=config,
                )
            )
        return loggers

    def _dumped(self) -> dict[str, Any]:
        """The resolved configuration, without what only says how this one process was started."""
        assert self.subcommand is not None
        parser = self._parser(self.subcommand)
        dumped: dict[str, Any] = yaml.safe_load(parser.dump(self.config[self.subcommand]))
        return {key: value for key, value in dumped.items() if key not in _NOT_RECORDED}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            if text := unknown_option(error, self._parser("fit")):
                raise UserError(text) from error
            raise

    def _parse_ckpt_path(self) -> None:
        """Refuses a configuration that contradicts the run's; Lightning would overwrite it silently.

        What is validated is what a run has trained: its last checkpoint, unless another is named.

        Raises:
            UserError: if there is no such checkpoint, or naming the setting that differs.
        """
        self.subcommand = self.config["subcommand"]
        run, ckpt_path = Path(self._get(self.config, "run")), self._get(self.config, "ckpt_path")
        last = run / "checkpoints" / "last.ckpt"
        if self.subcommand == "validate" and ckpt_path is None:
            ckpt_path = self.config[self.subcommand].ckpt_path = str(last)
        if ckpt_path is not None:
            path = last if ckpt_path == "last" else Path(ckpt_path)
            if not path.is_file():
                hint = "leave it out to start anew" if self.subcommand == "fit" else "run lightning fit first"
                raise UserError(f"ckpt_path is {ckpt_path}, but there is no {path}; {hint}")
            run = path.parent.parent
        if ckpt_path is not None or self.subcommand == "test":
            sections = ("model", "data", "seed_everything") if self.subcommand == "fit" else ("model",)
            RunFolder(run).refuse_contradiction(self._dumped(), sections=sections)


class _Record(Callback):
    """Takes the run folder once model and data are known to fit together; a mistake found until then leaves no trace.

    Args:
        folder: of the run.
        config: what it is to say about itself.
        fresh: what an earlier run left there goes first.
    """

    def __init__(self, folder: RunFolder, config: dict[str, Any], *, fresh: bool) -> None:
        self.folder = folder
        self.config = config
        self.fresh = fresh

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        if trainer.is_global_zero:
            if self.fresh:
                self.folder.clear()
            self.folder.record(self.config)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last checkpoint is that of the last update, however many there are between two."""
        del pl_module
        trainer.save_checkpoint(self.folder.path / "checkpoints" / "last.ckpt")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        if trainer.is_global_zero and not self.folder.config():
            self.folder.record(self.config)

    on_validation_start = on_test_start
    on_predict_start = on_fit_start
