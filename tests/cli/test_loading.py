import io
import sys
import time
from types import SimpleNamespace

import pytest

from bsa_lightning.cli import loading as module
from bsa_lightning.cli.loading import loading


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal for stderr, on which a line comes as soon as it can."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    # Not sys.stderr itself, which pytest replaces between a fixture and its test.
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=Terminal(), meta_path=sys.meta_path))
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    return module.sys.stderr


def test_a_slow_command_says_what_is_loaded(terminal):
    with loading("fit"):
        time.sleep(0.5)
    assert terminal.getvalue() == "lightning fit: loading PyTorch and Lightning ...\n"


def test_a_quick_command_says_nothing(terminal, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with loading("fit"):
        pass
    time.sleep(0.4)
    assert terminal.getvalue() == ""


def test_packages_of_networks_are_announced_once(terminal, monkeypatch):
    monkeypatch.setattr(module, "_SLOW", ("no_such_package", "nor_this"))
    monkeypatch.setattr(module, "PATIENCE", 60)
    with loading("generate"):
        pass
    for name in ("json.no_such_part", *module._SLOW):
        with pytest.raises(ModuleNotFoundError):
            __import__(name)
    assert terminal.getvalue() == (
        "lightning generate: loading the networks' packages, diffusers and transformers ...\n"
    )


@pytest.mark.parametrize(("rank", "words"), [("1", ""), ("0", "lightning fit: loading PyTorch and Lightning ...\n")])
def test_one_process_of_a_run_speaks(terminal, monkeypatch, rank, words):
    monkeypatch.setenv("LOCAL_RANK", rank)
    with loading("fit"):
        time.sleep(0.5)
    assert terminal.getvalue() == words


def test_nothing_is_said_where_nobody_waits(terminal, monkeypatch):
    module.sys.stderr = io.StringIO()
    before = [*sys.meta_path]
    with loading("fit"):
        time.sleep(0.2)
    assert (module.sys.stderr.getvalue(), sys.meta_path) == ("", before)
