import sys

import pytest

from bsa_lightning.cli import fit  # noqa: F401 - its log handlers must not hold a captured stream
from bsa_lightning.cli.main import main


@pytest.mark.parametrize(("limits", "told"), [
    ([], "7 updates"),
    (["--model.plan.most_updates", "9"], "7 to 9 updates, more while its trajectory error falls"),
    (["--model.plan.patience", "2"], "7 updates, fewer after 2 validations in a row without a lower trajectory error"),
])  # fmt: skip
def test_a_plan_says_the_steps_and_updates_of_every_round(monkeypatch, capsys, tmp_path, limits, told):
    words = ["fit", "--config", "configs/demo.yaml", "--run", str(tmp_path / "run"), "--plan"]
    words += ["--model.plan.start_steps", "16", "--model.plan.end_steps", "1", "--model.plan.factor", "4"]
    monkeypatch.setattr(sys, "argv", ["lightning", *words, "--model.plan.updates", "7", *limits])
    with pytest.raises(SystemExit, match="0"):
        main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round")]
    assert lines == [f"round 1: 16 to 4 steps, {told}", f"round 2: 4 to 1 steps, {told}"]
    assert not (tmp_path / "run").exists()


def test_a_plan_of_a_method_that_keeps_its_teacher_says_so(monkeypatch, capsys, tmp_path):
    words = ["fit", "--config", "configs/demo.yaml", "--run", str(tmp_path / "run"), "--plan"]
    words += ["--model.method", "SegmentedConsistency", "--model.ema_decay", "0.9", "--model.plan.end_steps", "2"]
    monkeypatch.setattr(sys, "argv", ["lightning", *words])
    with pytest.raises(SystemExit, match="0"):
        main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round")]
    assert lines == ["round 1: 8 to 4 steps, 120 updates", "round 2: 8 to 2 steps, 120 updates"]


def test_a_plan_says_where_shapes_are_those_of_published_weights(monkeypatch, capsys, tmp_path):
    words = ["fit", "--config", "tango-audiocaps", "--run", str(tmp_path / "run"), "--plan"]
    monkeypatch.setattr(sys, "argv", ["lightning", *words])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "is no folder here, so that the shapes are those of the published weights" in capsys.readouterr().out
