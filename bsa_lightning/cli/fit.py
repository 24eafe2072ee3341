"""``lightning fit|validate|test|predict``: Lightning's own command line, with a run folder around it."""

from __future__ import annotations

import logging
import warnings
from argparse import ArgumentError
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from bsa_lightning.cli import classes
from bsa_lightning.cli.config_files import PARSER_MODE, prepare_parser
from bsa_lightning.cli.cost_table import print_plan
from bsa_lightning.cli.loading import held_back
from bsa_lightning.cli.messages import unknown_option
from bsa_lightning.cli.trainer_settings import check_gpus, check_trainer
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.evaluation.scoring import Scoring
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.training.bad_updates import BadUpdates
from bsa_lightning.training.checkpoint_file import CheckpointFile
from bsa_lightning.training.interruption import Interruption
from bsa_lightning.training.metrics_file import MetricsFile
from bsa_lightning.training.rank_watch import RankWatch
from bsa_lightning.training.resume import ResumePoint
from bsa_lightning.training.run_callbacks import RunProgressBar, RunRecord, StudentRecord
from bsa_lightning.training.run_files import TRAINED_BY
from bsa_lightning.training.run_folder import RunFolder, settings_of
from bsa_lightning.training.wandb_run import WandbRun, wandb_mode

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
    r"You're resuming from a checkpoint that ended before the epoch ended",  # the data module knows where it was
    r"\s+(By default only one Jsonargparse|``instantiate_classes``)",  # Lightning's command line
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning beside torch 2.11
)

_RANK_ZERO = logging.getLogger("lightning.pytorch.utilities.rank_zero")
_NOT_RECORDED = ("plan", "ckpt_path", "overwrite", "weights_only", "verbose", "return_predictions")


def run(words: list[str], *, only_check: bool = False) -> None:
    """Runs the subcommand that ``sys.argv`` names, since Lightning starts the processes of other ranks from it.

    Args:
        words: the same words, without the program.
        only_check: whether to stop when all settings are read and everything is built from them, before any work.

    Raises:
        UserError: if a setting is wrong.
    """
    for word in words:
        if not word.isprintable() and word != word.encode("utf-8", "replace").decode():
            raise UserError(f"{word!r} is no text in UTF-8, which the names of a run's settings must be; rename it")
    prepare_parser(words)
    for message in NEEDLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    # Lightning's "tips" advertise cloud services.
    _RANK_ZERO.addFilter(lambda record: "Tip:" not in record.getMessage())
    reader = CheckpointFile()
    with ExitStack() as locks:
        try:
            with suppress(_CheckedError):
                Command(locks, reader, only_check=only_check)
        except MisconfigurationException as error:
            raise UserError(str(error)) from error
        except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            if reader.unproven is None or isinstance(error, UserError):
                raise
            reason = (str(error).strip().splitlines() or [""])[0]
            raise UserError(
                f"{reader.unproven} does not fit this run ({type(error).__name__}: {reason});"
                " bring the run's own checkpoint back, or replace the run (--overwrite true, without --ckpt_path)"
            ) from error


class _CheckedError(Exception):
    """Ends a command that was only to be checked, when all is built."""


class Command(LightningCLI):
    """Lightning's command line for any LightningModule and LightningDataModule, with a folder for the run.

    Args:
        locks: the stack that holds the lock of the run folder until the command has ended.
        reader: the plugin that reads and writes checkpoints.
        only_check: whether to stop before the work begins.
    """

    begins: bool
    """Whether ``--ckpt_path last`` names a run that has no checkpoint yet, so that it starts at the beginning."""

    def __init__(self, locks: ExitStack, reader: CheckpointFile, *, only_check: bool = False) -> None:
        self.locks, self.reader, self.only_check = locks, reader, only_check
        self.begins = False
        classes.register()
        settings = {"exit_on_error": False, "parser_mode": PARSER_MODE}
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
            "--wandb",
            type=Literal["offline", "online", "disabled"] | None,
            default=None,
            help="Weights & Biases; None is WANDB_MODE, or offline without it",
        )
        parser.add_argument(
            "--checkpoint_every", type=int, default=100, help="updates between two checkpoints to resume from"
        )
        parser.add_class_arguments(ScoringSettings, "scoring", fail_untyped=False)

    def before_instantiate_classes(self) -> None:
        self.config[self.subcommand].ckpt_path = self.checkpoint
        if self._get(self.config, "plan"):
            if self.subcommand != "fit":
                raise UserError(f"--plan is given, but only fit can be planned, not {self.subcommand}; leave it out")
            print_plan(self._parser(self.subcommand), self.config[self.subcommand])
            raise SystemExit(0)
        check_trainer(self._get(self.config, "trainer"), fits=self.subcommand == "fit")
        self.resumed = self._get(self.config, "ckpt_path") is not None
        fresh = self.subcommand == "predict" or (self.subcommand == "fit" and not self.resumed)
        self.folder = RunFolder(Path(self._get(self.config, "run")), fresh=fresh)
        # Other ranks start when the first has made the folder.
        if fresh and not self.begins:
            rank_zero_only(self.folder.refuse_if_used)(overwrite=self._get(self.config, "overwrite"))
        self.callbacks: list[Callback] = [
            RunRecord(self.folder, self._dumped(), fresh=fresh),
            ResumePoint(
                self.folder.last_checkpoint,
                reader=self.reader,
                folder=self.folder,
                settings=settings_of(self._dumped()),
                every=self._get(self.config, "checkpoint_every"),
                interruption=Interruption(),
            ),
            StudentRecord(),
        ]

    def instantiate_classes(self) -> None:
        """Makes the model last: its networks take seconds to load, and a mistake elsewhere is told before that."""
        settings = self.config.clone()
        model = settings[self.subcommand].pop("model")
        with held_back(_RANK_ZERO):  # lines on devices, which nobody needs before a mistake
            self.config_init = self.parser.instantiate_classes(settings)
            self.datamodule = self._get(self.config_init, "data")
            self.trainer = self.instantiate_trainer()
            self.model = self._parser(self.subcommand).instantiate_classes(Namespace(model=model)).model

    def before_fit(self) -> None:
        if self.only_check:
            raise _CheckedError

    def after_fit(self) -> None:
        rank_zero_only(print)(f"lightning {self.subcommand}: done, and all of it is in {self.folder.path}")

    after_test = after_predict = after_fit

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - Lightning's signature
        """A trainer with what every run has beside the callbacks, loggers and plugins that its settings name."""
        trainer = self._get(self.config_init, "trainer")
        check_gpus(trainer)
        callbacks = _listed(trainer.callbacks)
        own: dict[str, Any] = {
            "default_root_dir": self.folder.path,
            "callbacks": self._all_callbacks(callbacks, with_bar=trainer.enable_progress_bar is not False),
            "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
            "plugins": [*_listed(trainer.plugins), self.reader],
        }
        if trainer.logger is not False:
            own["logger"] = [*self._loggers(), *_listed(None if trainer.logger is True else trainer.logger)]
        try:
            return super().instantiate_trainer(**own, **kwargs)
        except UserError:
            raise
        except (ValueError, TypeError, RuntimeError) as error:  # Lightning's words about its own settings
            raise UserError(f"the settings of trainer do not fit together or this machine: {error}") from error

    def _all_callbacks(self, given: list[Callback], *, with_bar: bool) -> list[Callback]:
        """The callbacks of the run, in the order in which Lightning calls them.

        A checkpoint comes before what other callbacks do at the end of a round, such as scoring it.
        """
        first: list[Callback] = [*self.callbacks]
        first += [kind() for kind in (RankWatch, BadUpdates) if not any(isinstance(each, kind) for each in given)]
        if with_bar and not any(isinstance(callback, ProgressBar) for callback in given):
            # Rich's bar, which Lightning prefers, redraws in logs and counts endless epochs as -2.
            first.append(RunProgressBar(refresh_rate=10))
        return [*first, *given, Scoring(self._get(self.config_init, "scoring"))]

    def _loggers(self) -> list[Logger]:
        loggers: list[Logger] = []
        if self.subcommand in ("validate", "predict"):  # which add no numbers to a run
            return loggers
        loggers.append(MetricsFile(self.folder.path))
        mode = self._get(self.config, "wandb") or wandb_mode()
        if mode != "disabled":
            loggers.append(
                WandbRun(self.folder.path, id=self.folder.wandb_id, config=self._dumped(), online=mode == "online")
            )
        return loggers

    def _dumped(self) -> dict[str, Any]:
        """The resolved configuration, without the settings that concern only how this process was started."""
        assert self.subcommand is not None
        parser = self._parser(self.subcommand)
        dumped: dict[str, Any] = yaml.safe_load(parser.dump(self.config[self.subcommand], skip_unset=False))
        return {key: value for key, value in dumped.items() if key not in _NOT_RECORDED}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Reads the settings, and refuses those that contradict the run that is to be continued."""
        try:
            super().parse_arguments(parser, args)
            seed = self.config[self.config["subcommand"]].get("seed_everything")
            if not isinstance(seed, bool | None):
                check_number("seed_everything", seed, whole=True, at_least=0, at_most=2**32 - 1)
        except ArgumentError as error:
            if text := unknown_option(error, self._parser("fit")):
                raise UserError(text) from error
            raise
        self.subcommand = self.config["subcommand"]
        # Hidden from Lightning until the parsing is over: it would load the file and look for settings in it.
        self.checkpoint, self.config[self.subcommand].ckpt_path = self._resolve_checkpoint(), None

    def _resolve_checkpoint(self) -> str | None:
        """Returns the checkpoint to continue from, or to validate; ``None`` is the beginning, or no checkpoint.

        ``validate`` takes the last checkpoint of the run, unless another is named. ``fit --ckpt_path last`` continues
        where the run was stopped, which is the beginning if it was stopped before its first checkpoint.

        Raises:
            UserError: if there is no such checkpoint, or naming the settings that differ.
        """
        config, fit = self.config[self.subcommand], self.subcommand == "fit"
        if config.plan:
            return None
        if not config.run.strip():
            raise UserError("run is empty; name a folder, such as runs/demo")
        folder = RunFolder(Path(config.run))
        if self.subcommand == "test" and not folder.path.is_dir():
            raise UserError(f"run is {folder.path}, but no such folder exists; run lightning fit first")
        if self.subcommand != "validate":
            rank_zero_only(lambda: self.locks.enter_context(folder.locked()))()
        path = config.get("ckpt_path")
        if path == "last" or (path is None and self.subcommand == "validate"):
            path = str(folder.last_checkpoint)
            if fit and not folder.last_checkpoint.is_file():
                rank_zero_only(folder.refuse_foreign)()
                folder.refuse_lost_checkpoint()
                self.begins = True
                rank_zero_info(f"{folder.path} has no checkpoint yet: it starts at the beginning")
                config.overwrite, path = True, None
        if path is not None and not Path(path).is_file():
            hint = "`--ckpt_path last` goes on where the run was stopped" if fit else "run lightning fit first"
            raise UserError(f"ckpt_path is {path}, but there is no such file; {hint}")
        if path is not None or self.subcommand == "test":
            run = folder if path is None else RunFolder(Path(path).parent.parent)
            run.refuse_contradiction(self._dumped(), sections=TRAINED_BY if fit else ("model.",))
        return path


def _listed(given: Any) -> list[Any]:  # noqa: ANN401 - Lightning takes one object, a list of them, or None
    """The objects of a setting of the trainer, as a list."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]
