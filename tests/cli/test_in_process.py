"""Commands that follow one another in one process."""

import os

from bsa_lightning.cli import fit
from bsa_lightning.cli.in_process import run_in_process


def test_what_lightning_leaves_behind_is_taken_back(monkeypatch):
    """Else the next command would take itself for a rank that a launcher has started, and start no others."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("MASTER_PORT", "1234")
    left = {"LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "5678", "OTHER": "kept"}
    monkeypatch.setenv("OTHER", "")
    before = dict(os.environ)
    monkeypatch.setattr(fit, "run", lambda *_, **__: os.environ.update(left))
    run_in_process("fit", {}, None)
    assert dict(os.environ) == before | {"OTHER": "kept"}


def test_ranks_of_a_launcher_stay(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("MASTER_PORT", "1234")
    before = dict(os.environ)
    monkeypatch.setattr(fit, "run", lambda *_, **__: None)
    run_in_process("test", {}, None)
    assert dict(os.environ) == before
