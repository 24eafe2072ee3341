"""Writes the help of the commands that import torch, which comes as text: ``python -m docs.tools.help_texts``."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from bsa_lightning.cli.help_texts import COMMANDS, FOLDER, SCORE_MODEL
from bsa_lightning.cli.main import find_command

_COLUMNS = 100
"""Characters of a line."""


def write(folder: Path) -> None:
    """Writes what the parser of each command prints.

    The help of a setting lists the classes that are imported, so that the process must have imported nothing but this
    module, and the commands come in an order in which none imports what an earlier one does not list.

    Args:
        folder: the folder of the texts, which exists.
    """
    os.environ["COLUMNS"] = str(_COLUMNS)
    for name in (*COMMANDS, SCORE_MODEL):
        command, options = ("score", ["--model=x"]) if name == SCORE_MODEL else (name, [])
        sys.argv = ["lightning", command, *options, "--help"]
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            find_command(command)(sys.argv[1:])
        (folder / f"{name}.txt").write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
