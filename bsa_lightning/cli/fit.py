"""``lightning fit|validate|test|predict``: Lightning's own command line, with a run folder around it."""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from bsa_lightning.cli import classes
from bsa_lightning.cli.collected import REFUSED, Mistakes
from bsa_lightning.cli.config_files import PARSER_MODE, prepare_parser
from bsa_lightning.cli.continuation import resolve_checkpoint
from bsa_lightning.cli.cost_table import print_plan
from bsa_lightning.cli.fitting_command import command_mistakes
from bsa_lightning.cli.help_order import AsWritten, put_ours_first
from bsa_lightning.cli.lightning_remarks import RANK_ZERO, quieten
from bsa_lightning.cli.loading import held_back
from bsa_lightning.cli.mistakes import read_all
from bsa_lightning.cli.outcome import Outcome, fit_outcome, predict_outcome, test_outcome
from bsa_lightning.cli.trainer_settings import TRAINER_DEFAULTS, check_gpus, listed, trainer_mistakes
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.common.settings_alone import without_networks
from bsa_lightning.evaluation.scoring import Scoring
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.training.bad_updates import BadUpdates
from bsa_lightning.training.checkpoint_file import CheckpointFile
from bsa_lightning.training.interruption import Interruption
from bsa_lightning.training.metrics_file import MetricsFile
from bsa_lightning.training.progress_lines import ProgressLines
from bsa_lightning.training.rank_watch import RankWatch
from bsa_lightning.training.resume import ResumePoint
from bsa_lightning.training.run_callbacks import RunProgressBar, RunRecord, StudentRecord
from bsa_lightning.training.run_folder import RunFolder, settings_of
from bsa_lightning.training.wandb_run import WandbRun, wandb_mode

_NOT_RECORDED = ("plan", "ckpt_path", "overwrite", "weights_only", "verbose", "return_predictions")


def run(words: list[str], *, only_check: bool = False, is_part: bool = False) -> None:
    """Runs the subcommand that ``sys.argv`` names, since Lightning starts the processes of other ranks from it.

    Args:
        words: the same words, without the program.
        only_check: whether to stop when all settings are read and everything is built from them, before any work.
        is_part: whether other commands follow in this process, so that the end of a whole one is not told.

    Raises:
        UserError: if a setting is wrong.
    """
    for word in words:
        if not word.isprintable() and word != word.encode("utf-8", "replace").decode():
            raise UserError(f"{word!r} is no text in UTF-8, which the names of a run's settings must be; rename it")
    prepare_parser(words)
    quieten()
    reader = CheckpointFile()
    with ExitStack() as locks:
        try:
            with suppress(_CheckedError):
                Command(locks, reader, only_check=only_check, is_part=is_part)
        except MisconfigurationException as error:
            raise UserError(str(error)) from error
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # Lightning exits with 1
                raise KeyboardInterrupt from error
            raise
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
        is_part: whether other commands follow in this process.
    """

    begins: bool = False
    """Whether ``--ckpt_path last`` names a run that has no checkpoint yet, so that it starts at the beginning."""

    def __init__(self, locks: ExitStack, reader: CheckpointFile, *, only_check: bool, is_part: bool) -> None:
        self.locks, self.reader, self.only_check, self.is_part = locks, reader, only_check, is_part
        self.mistakes, self.of_folder = Mistakes(sys.argv[1:]), Mistakes(())
        classes.register()
        settings = {"exit_on_error": False, "parser_mode": PARSER_MODE, "allow_abbrev": False}
        settings["formatter_class"] = AsWritten
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
            help="the mode of Weights & Biases; None takes WANDB_MODE, or offline if that is not set",
        )
        parser.add_argument(
            "--checkpoint_every", type=int, default=100, help="updates between two checkpoints to resume from"
        )
        parser.add_class_arguments(ScoringSettings, "scoring", fail_untyped=False)

    def _prepare_subcommand_parser(self, *args: Any, **kwargs: Any) -> LightningArgumentParser:  # noqa: ANN401
        parser: LightningArgumentParser = super()._prepare_subcommand_parser(*args, **kwargs)
        if "--help" in sys.argv:
            put_ours_first(parser, args[1])
        return parser

    def before_instantiate_classes(self) -> None:
        if self._get(self.config, "plan"):
            if self.subcommand != "fit":
                raise UserError(f"--plan is given, but only fit can be planned, not {self.subcommand}; leave it out")
            print_plan(self._parser(self.subcommand), self.config[self.subcommand])
            raise SystemExit(0)
        of_trainer = list(trainer_mistakes(self._get(self.config, "trainer"), fits=self.subcommand == "fit"))
        for error in [*of_trainer, *command_mistakes(str(self.subcommand), self._get(self.config, "model").class_path)]:
            self.mistakes.add(error)
        self.is_trainer_refused = bool(of_trainer)
        checkpoint = self.of_folder.check(self._resolve_checkpoint, None)
        self.resumed = checkpoint is not None
        fresh = self.subcommand == "predict" or (self.subcommand == "fit" and not self.resumed)
        self.folder = RunFolder(Path(self._get(self.config, "run")), fresh=fresh)
        # Other ranks start when the first has made the folder.
        if fresh and not self.begins and not self.of_folder.sentences:
            settings = {"overwrite": self._get(self.config, "overwrite"), "config": self._dumped()}
            self.of_folder.check(lambda: rank_zero_only(self.folder.refuse_if_used)(**settings), None)
        self.config[self.subcommand].ckpt_path = checkpoint
        self.callbacks: list[Callback] = [RunRecord(self.folder, self._dumped(), fresh=fresh)]
        point = self.mistakes.check(self._resume_point, None)
        self.callbacks += [StudentRecord()] if point is None else [point, StudentRecord()]

    def _resume_point(self) -> ResumePoint:
        return ResumePoint(
            self.folder.last_checkpoint,
            reader=self.reader,
            folder=self.folder,
            settings=settings_of(self._dumped()),
            every=self._get(self.config, "checkpoint_every"),
            interruption=Interruption(),
        )

    def instantiate_classes(self) -> None:
        """Makes embeddings and networks last, which take long to load: a mistake elsewhere is told before that.

        All that the settings have wrong is told at once, and what is wrong with the folder of the run comes last.
        """
        settings, parser = self.config.clone(), self._parser(self.subcommand)
        model, scoring = (Namespace({name: settings[self.subcommand].pop(name)}) for name in ("model", "scoring"))
        made = [(self.mistakes.make, object, True)]
        make = partial(parser.instantiate, instantiators=made)
        with held_back(RANK_ZERO):  # lines on devices, which nobody needs before a mistake
            self.config_init = self.parser.instantiate(settings, instantiators=made)
            self.datamodule = self._get(self.config_init, "data")
            self.mistakes.check(lambda: check_gpus(self._get(self.config_init, "trainer")), None)
            with without_networks():
                self.model = make(model).model  # whole already if it loads nothing by our loaders
            with without_networks() if self.mistakes.sentences or self.of_folder.sentences else nullcontext():
                found = make(scoring).scoring
            self.config_init[self.subcommand].scoring = ScoringSettings() if found is REFUSED else found
            if self.datamodule is not REFUSED:
                self.mistakes.check(self._make_trainer, None)
            self.mistakes.sentences |= self.of_folder.sentences
            self.mistakes.refuse()
            self.model = make(model).model if self.model is REFUSED else self.model
            self.mistakes.refuse()

    def _make_trainer(self) -> None:
        try:
            self.trainer = self.instantiate_trainer()
        except MisconfigurationException as error:
            if not self.is_trainer_refused:  # else it says the same in other words
                raise UserError(str(error)) from error

    def before_fit(self) -> None:
        if self.only_check:
            raise _CheckedError

    def after_fit(self) -> None:
        self._say(fit_outcome(self.trainer, self.model, self.folder.path))

    def after_test(self) -> None:
        self._say(test_outcome(self.trainer, self.model, self.folder.path))

    def after_predict(self) -> None:
        self._say(predict_outcome(self.trainer, self.datamodule, self.folder.path))

    def _say(self, outcome: Outcome) -> None:
        if not (self.is_part and outcome.is_whole):
            lines = [outcome.table] if outcome.table else []
            rank_zero_only(print)("\n".join([*lines, f"lightning {self.subcommand}: {outcome.text}"]))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - Lightning's signature
        """A trainer with what every run has beside the callbacks, loggers and plugins that its settings name."""
        trainer = self._get(self.config_init, "trainer")
        callbacks = listed(trainer.callbacks)
        own: dict[str, Any] = {
            "default_root_dir": self.folder.path,
            "callbacks": self._all_callbacks(callbacks, with_bar=trainer.enable_progress_bar is not False),
            "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
            "plugins": [*listed(trainer.plugins), self.reader],
        }
        if trainer.logger is not False:
            own["logger"] = [*self._loggers(), *listed(None if trainer.logger is True else trainer.logger)]
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
            first.append(RunProgressBar(refresh_rate=10) if sys.stderr.isatty() else ProgressLines())
        return [*first, *given, Scoring(self._get(self.config_init, "scoring"))]

    def _loggers(self) -> list[Logger]:
        if self.subcommand in ("validate", "predict"):  # which add no numbers to a run
            return []
        loggers: list[Logger] = [MetricsFile(path := self.folder.path)]
        mode = self._get(self.config, "wandb") or wandb_mode()
        if mode != "disabled":
            loggers.append(WandbRun(path, id=self.folder.wandb_id, config=self._dumped(), online=mode == "online"))
        return loggers

    def _dumped(self) -> dict[str, Any]:
        """The resolved configuration, without the settings that concern only how this process was started."""
        assert self.subcommand is not None
        parser = self._parser(self.subcommand)
        dumped: dict[str, Any] = yaml.safe_load(parser.dump(self.config[self.subcommand], skip_unset=False))
        return {key: value for key, value in dumped.items() if key not in _NOT_RECORDED}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Reads the settings, and refuses those that contradict the run that is to be continued."""
        del args  # those of Python, which are not used here
        self.config = read_all(parser.parse_args, sys.argv[1:], self._parser(sys.argv[1]))
        self.subcommand = self.config["subcommand"]
        # Hidden from Lightning until the parsing is over: it would load the file and look for settings in it.
        self.given_checkpoint = self.config[self.subcommand].pop("ckpt_path", None)
        self.config[self.subcommand].ckpt_path = None

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if not isinstance(seed, bool | None):
            check = partial(check_number, "seed_everything", seed, whole=True, at_least=0, at_most=2**32 - 1)
            self.mistakes.check(check, None)
        if not self.mistakes.sentences:
            super()._set_seed()

    def _resolve_checkpoint(self) -> str | None:
        assert self.subcommand is not None
        path, self.begins = resolve_checkpoint(
            self.subcommand, self.config[self.subcommand], self.given_checkpoint, self._dumped(), self.locks
        )
        return path
