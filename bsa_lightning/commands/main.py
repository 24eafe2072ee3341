"""The ``lightning`` command: looks at the first word, and imports only what that command needs."""

from __future__ import annotations

import difflib
import importlib
import sys
from argparse import ArgumentError
from collections.abc import Callable

from bsa_lightning import __version__
from bsa_lightning.errors import UserError

COMMANDS = {
    "fit": ("train", "train: a whole ladder of distillation rounds, or a teacher"),
    "validate": ("train", "distillation and trajectory error of a run, on its validation clips"),
    "test": ("train", "score teacher and students at every step count, with repeats and intervals"),
    "predict": ("train", "captions file to audio files, over all devices"),
    "prepare": ("prepare", "audio and captions to latents and text states, over all devices; resumable"),
    "generate": ("generate", "one or more captions to wav files"),
    "report": ("report", "run folders to a table and a figure"),
}
"""Command: the module of this package that runs it, and its line of help."""

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
        The exit code: 2 after a mistake of the user's, which is answered in one sentence on stderr.
    """
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items())
        print(_USAGE.format(commands=lines), end="")
        return 0
    if words[0] == "--version":
        print(f"bsa-lightning {__version__}")
        return 0
    try:
        _command(words[0])(words)
    except (UserError, ArgumentError) as error:
        print(f"lightning {words[0]}: {_one_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nlightning {words[0]}: stopped by the keyboard", file=sys.stderr)
        return 130
    return 0


def _command(name: str) -> Callable[[list[str]], None]:
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(COMMANDS)}"
        raise UserError(f'there is no command "{name}"; {hint}')
    module = importlib.import_module(f"bsa_lightning.commands.{COMMANDS[name][0]}")
    command: Callable[[list[str]], None] = module.run
    return command


def _one_sentence(error: Exception) -> str:
    """The message on one line, without the parser's indentation."""
    return " ".join(str(error).split())
