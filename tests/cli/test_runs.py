"""``lightning runs``, from folders as runs leave them."""

import json
import sys

import pytest
import torch

from bsa_lightning.cli.main import main
from bsa_lightning.cli.runs import _rounds, describe
from bsa_lightning.common.locks import locked

CONFIG = """model:
  class_path: bsa_lightning.ProgressiveDistillation
  init_args: {plan: {start_steps: 8, end_steps: 2, updates: 10, factor: 2}}
"""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "a"
    (folder / "rounds" / "1-4steps").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "metrics.csv").write_text("step,train/loss\n4,0.5\n11,0.4\n14,\n")
    return folder


def test_how_far_a_run_is_comes_from_what_it_has_written(run):
    assert describe(run)[1:] == ("ProgressiveDistillation", "1 of 2", "12 of 20", "stopped", "no", "")
    (run / "checkpoints").mkdir()
    torch.save({"global_step": 15, "state_dict": {"a": torch.zeros(3)}}, run / "checkpoints" / "last.ckpt")
    assert describe(run)[3] == "15 of 20"
    (run / "checkpoints" / "last.ckpt").write_bytes(b"cut short")
    assert describe(run)[3] == "12 of 20"


def test_a_whole_run_is_finished_and_its_scores_are_seen(run):
    (run / "rounds" / "2-2steps").mkdir()
    (run / "scores.csv").touch()
    assert describe(run)[2:] == ("2 of 2", "20 of 20", "finished", "yes", "")


@pytest.mark.parametrize(("stopped", "state"), [(True, "stopped"), (False, "failed")])
def test_the_last_error_is_told(run, stopped, state, monkeypatch, capsys):
    (run / "last-error.json").write_text(json.dumps({"error": "the loss is nan", "stopped": stopped, "updates": 13}))
    assert describe(run)[3:] == ("13 of 20", state, "no", "the loss is nan")
    monkeypatch.setattr(sys, "argv", ["lightning", "runs", str(run.parent)])
    assert main() == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{run}: the loss is nan"


def test_a_run_that_is_at_work_says_so(run):
    with locked(run, busy="busy"):
        assert describe(run)[4] == "at work"
    assert describe(run)[4] == "stopped"


def test_a_damaged_run_does_not_hide_the_others(run):
    (run / "config.yaml").write_text("a: [")
    assert describe(run)[4] == "unreadable"


@pytest.mark.parametrize("limit", ["patience: 2", "most_updates: 30"])
def test_rounds_that_end_sooner_or_later_than_planned_count_what_is_done(run, limit):
    (run / "config.yaml").write_text(CONFIG.replace("factor: 2", f"factor: 2, {limit}"))
    (run / "rounds" / "2-2steps").mkdir()
    assert describe(run)[2:5] == ("2 of 2", "12, planned 20", "finished")


def test_rounds_are_counted_as_plans_count_them():
    assert _rounds({"start_steps": 64, "end_steps": 4, "updates": 3, "factor": 16}) == [3]
    assert _rounds({"start_steps": 8, "end_steps": 1, "updates": [1, 2, 3]}) == [1, 2, 3]
    assert _rounds({}) == []
