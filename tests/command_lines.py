"""Command lines that are read to the end, with nothing run."""

import functools
import importlib
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FUNCTIONS = {"prepare": "prepare_folder", "generate": "generate", "report": "report"}


def read(command, *, monkeypatch, run, instantiate):
    """The exit code of ``command``, where it would start to work.

    Args:
        command: as typed in the repository's root.
        monkeypatch: pytest's.
        run: a run folder that is not there.
        instantiate: build model, data and trainer as well.
    """
    from bsa_lightning.commands.main import main

    words = shlex.split(command)
    assert words[0] == "lightning"
    monkeypatch.chdir(ROOT)
    if words[1] in FUNCTIONS:
        module = importlib.import_module(f"bsa_lightning.commands.{words[1]}")
        function = getattr(module, FUNCTIONS[words[1]])
        monkeypatch.setattr(module, function.__name__, functools.wraps(function)(lambda **_: None))
    else:
        from bsa_lightning.commands.fit import Command

        words += ["--run", str(run), "--wandb", "disabled"]
        monkeypatch.setattr(Command, "_run_subcommand", lambda *_: None)
        monkeypatch.setattr(Command, "_parse_ckpt_path", lambda *_: None)
        if not instantiate:
            monkeypatch.setattr(Command, "instantiate_classes", lambda *_: None)
    monkeypatch.setattr(sys, "argv", words)
    return main()
