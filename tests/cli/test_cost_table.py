import sys

import pytest

from bsa_lightning.cli import fit  # noqa: F401 - its log handlers must not hold a captured stream
from bsa_lightning.cli.main import main


def test_a_plan_says_the_steps_of_every_round(monkeypatch, capsys, tmp_path):
    words = ["fit", "--config", "configs/demo.yaml", "--run", str(tmp_path / "run"), "--plan"]
    words += ["--model.plan.start_steps", "16", "--model.plan.end_steps", "1", "--model.plan.factor", "4"]
    monkeypatch.setattr(sys, "argv", ["lightning", *words, "--model.plan.updates", "7"])
    with pytest.raises(SystemExit, match="0"):
        main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round")]
    assert lines == ["round 1: 16 to 4 steps, 7 updates", "round 2: 4 to 1 steps, 7 updates"]
    assert not (tmp_path / "run").exists()
