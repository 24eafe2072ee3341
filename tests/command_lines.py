"""Command lines that are read to the end, with nothing run."""

import functools
import importlib
import re
import shlex
import sys
from pathlib import Path

import jsonargparse

# Imported here, because Lightning's log handlers keep the stderr of their import, which a test would close.
from bsa_lightning.cli import fit
from bsa_lightning.cli.fit import Command
from bsa_lightning.cli.main import main

ROOT = Path(__file__).parent.parent
FUNCTIONS = {
    "recipes": "copy",
    "distill": "distill",
    "prepare": "prepare_folder",
    "generate": "generate",
    "report": "report",
    "runs": "runs",
    "convert": "convert",
    "export": "export",
    "dashboard": "dashboard",
    "score": "score",
}


def read(command, *, monkeypatch, run, instantiate, root=ROOT):
    """The exit code of ``command``, stopped where it would start to work.

    A run's own configuration is replaced by that of the demo, which runs are made with.

    Args:
        command: as typed in ``root``.
        monkeypatch: pytest's.
        run: a run folder that is not there.
        instantiate: build model, data and trainer as well.
        root: of the repository, or of a copy.
    """
    words = shlex.split(re.sub(r"runs/\S+/config.yaml", "configs/demo.yaml", command))
    assert words[0] == "lightning"
    monkeypatch.chdir(root)
    if words[1] in FUNCTIONS:
        module = importlib.import_module(f"bsa_lightning.cli.{words[1]}")
        function = getattr(module, FUNCTIONS[words[1]])
        monkeypatch.setattr(module, function.__name__, functools.wraps(function)(lambda **_: None))
        monkeypatch.setattr(jsonargparse.ArgumentParser, "instantiate", lambda _, config: config)
    else:
        if not any(word.endswith(".help") for word in words):
            words += ["--run", str(run), "--wandb", "disabled"]
        monkeypatch.setattr(Command, "_run_subcommand", lambda *_: None)
        monkeypatch.setattr(fit, "print_plan", lambda *_: None)
        monkeypatch.setattr(Command, "_resolve_checkpoint", lambda *_: None)
        if not instantiate:
            monkeypatch.setattr(Command, "instantiate_classes", lambda *_: None)
    monkeypatch.setattr(sys, "argv", words)
    try:
        return main()
    except SystemExit as exit_:  # --print_config
        return exit_.code
