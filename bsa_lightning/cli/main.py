"""The ``lightning`` command: looks at the first word, and imports only what that command needs."""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import io
import logging
import sys
from collections.abc import Callable

from bsa_lightning.cli.help_texts import help_text
from bsa_lightning.cli.known_settings import did_you_mean
from bsa_lightning.cli.loading import loading
from bsa_lightning.cli.messages import sentence
from bsa_lightning.cli.recipe_files import with_recipe_files
from bsa_lightning.common.errors import StoppedError, UserError
from bsa_lightning.common.light_imports import light_imports

COMMANDS = {
    "fit": ("fit", "train: a whole ladder of distillation rounds, or a teacher"),
    "validate": ("fit", "distillation and trajectory error of a run, on its validation clips"),
    "test": ("fit", "score teacher and students at every step count, with repeats and intervals"),
    "predict": ("fit", "captions file to audio files, over all devices"),
    "distill": ("distill", "a model and a file of captions to a student, its scores and a page, without recordings"),
    "prepare": ("prepare", "audio and captions to latents and text states, over all devices; resumable"),
    "convert": ("convert", "an original checkpoint of Tango or TangoFlux to a model folder"),
    "generate": ("generate", "one or more captions to wav files"),
    "export": ("export", "best or last student of a run to a whole model folder with a model card"),
    "score": ("score", "two folders of audio files, or a model (--model), to the metrics of test"),
    "dashboard": ("dashboard", "the W&B workspace that compares runs, as code"),
    "report": ("report", "run folders to a table, a figure and a listening page"),
    "runs": ("runs", "the runs in a folder: how far each is, whether it failed, and its last error"),
    "recipes": ("recipes", "the configurations that come with the package: list, print, copy out"),
}
"""Command: the module of this package that runs it, and its line of help."""

_GO_ON = {
    "fit": "go on with --ckpt_path last, from the last checkpoint",
    "test": "the same command goes on with what is not scored yet",
    "predict": "the same command with --overwrite true starts again",
    **dict.fromkeys(("distill", "prepare"), "the same command goes on from there"),
}
"""How to go on after Ctrl-C at another moment than between two updates."""

_LONGEST = 40
"""Characters of a word that is said again."""

_USAGE = """usage: lightning COMMAND [OPTIONS]

Progressive distillation of text-to-audio diffusion models.

commands:
{commands}

options:
  --help      this text; `lightning COMMAND --help` lists the options of a command
  --version   print the version
"""


def main() -> int:
    """Runs the command that ``sys.argv`` names; the console scripts call this.

    Returns:
        The exit code: 2 after a mistake of the user's, which is answered in one sentence on stderr; 143 after SIGTERM,
        130 after Ctrl-C.
    """
    words = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not words or words[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items())
        print(_USAGE.format(commands=lines), end="")
        return 0
    if words[0] == "--version":
        print(f"bsa-lightning {_version()}")
        return 0
    name = words[0] if len(words[0]) <= _LONGEST else f"{words[0][:_LONGEST]}..."
    if (text := help_text(words)) is not None:
        print(text, end="")
        return 0
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # imported by diffusers, it advises another package
    try:
        with loading(name):
            words = with_recipe_files(words)
            sys.argv[1:] = words  # the processes of other ranks are started from it
            command = find_command(words[0])
        gc.freeze()  # what is imported lives as long as the process: the collector need not look at it again and again
        command(words)
    except KeyboardInterrupt:
        how = _GO_ON.get(words[0], "nothing is left half written; run the same command again")
        print(f"\nlightning {name}: stopped by Ctrl-C; {how}", file=sys.stderr)
        return 130
    except StoppedError as error:
        print(f"\nlightning {name}: {error}", file=sys.stderr)  # below the progress bar
        return error.exit_code
    except Exception as error:
        if (text := sentence(error)) is None:
            raise
        print(f"lightning {name}: {text}", file=sys.stderr)
        return 2
    return 0


def find_command(name: str) -> Callable[[list[str]], None]:
    """Imports a command, and returns the function that runs it with the words of the command line.

    Raises:
        UserError: if there is no command of this name.
    """
    if name not in COMMANDS:
        hint = did_you_mean(name, list(COMMANDS)) or f"; the commands are {', '.join(COMMANDS)}"
        raise UserError(f'there is no command "{name[:_LONGEST]}"{hint}')
    with light_imports():
        module = importlib.import_module(f"bsa_lightning.cli.{COMMANDS[name][0]}")
    command: Callable[[list[str]], None] = module.run
    return command


def _version() -> str:
    try:
        return importlib.metadata.version("bsa-lightning")
    except importlib.metadata.PackageNotFoundError:
        return "from a folder that is not installed"
