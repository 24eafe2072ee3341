"""The workspace is built and written out with no server: what is in it follows from the runs."""

import json
import sys

import pytest
from reporting.runs import write_scores

from bsa_lightning.cli.main import main
from bsa_lightning.reporting.dashboard import WEIGHTING, as_json, workspace

# wandb-workspaces is written for pydantic 1 and runs on 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:pydantic", "ignore::DeprecationWarning:wandb_workspaces"
)


@pytest.fixture
def run(tmp_path):
    run = write_scores(tmp_path / "run")
    (run / "samples" / "student-bsa-4steps").mkdir(parents=True)
    return run


def test_panels_are_those_of_the_runs(run):
    board = workspace([run], entity="someone", project="weightings")
    panels = {section.name: section.panels for section in board.sections}
    assert [panel.metric_regex for panel in panels["Scores over evaluations"]] == [
        "scores/.*/trajectory_error",
        "scores/.*/fd_logmel",
    ]
    assert [panel.x for panel in panels["Scores over evaluations"]] == ["nfe"] * 2
    assert {panel.groupby_rangefunc for panel in panels["Scores over evaluations"]} == {"minmax"}
    assert panels["Scores over evaluations"][0].title_y == "mean of runs; band: least to most"
    assert panels["Listen"][0].media_keys == ["samples/student-bsa-4steps", "spectrograms/student-bsa-4steps"]
    text = as_json(board)
    assert json.loads(text)["project"] == "weightings"
    assert WEIGHTING in text


def test_the_command_prints_what_it_would_save(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lightning", "dashboard", str(run), "--entity", "someone"])
    assert main() == 0
    assert json.loads(capsys.readouterr().out)["entity"] == "someone"


def test_without_a_login_saving_is_refused_in_a_sentence(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(
        "wandb_workspaces.workspaces.Workspace.save", lambda _self: (_ for _ in ()).throw(ValueError("no API key"))
    )
    monkeypatch.setattr(sys, "argv", ["lightning", "dashboard", str(run), "--entity", "someone", "--save", "true"])
    assert main() == 2
    assert "cannot be saved (no API key); run `wandb login`" in capsys.readouterr().err
