"""Which student `export` takes, and what it says when there is none."""

import json
import sys

import pytest

from bsa_lightning.cli import export as command
from bsa_lightning.cli.main import main
from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.scores import Score, ScoreFile


@pytest.fixture
def run(tmp_path):
    """Ten rounds, so that names and numbers sort differently; the second student has the best score.

    Another sampler's steps of one student say nothing about the student that was made for as many.
    """
    run = tmp_path / "run"
    for index in range(10):
        folder = run / "rounds" / f"{index + 1}-{1024 >> index}steps"
        folder.mkdir(parents=True)
        known = {"pipeline": "TangoPipeline", "teacher": "tiny", "weighting": "bsa", "guidance": "baked"}
        known |= {"round": index + 1, "num_steps": 1024 >> index, "guidance_scale": 2.0}
        (folder / "provenance.json").write_text(json.dumps(known))
    for num_steps, fd, sampler in (
        (1024, 3.0, "ddim"),
        (512, 1.0, "ddim"),
        (2, 2.0, "ddim"),
        (1024, 0.5, "re-noising"),
    ):
        ScoreFile(run / "scores.csv").append(
            Score("student", "bsa", 1, num_steps, "baked", 2.0, num_steps, 0, 8, {"fd_logmel": fd}, sampler)
        )
    return run


@pytest.mark.parametrize(
    ("student", "name"), [("last", "10-2steps"), ("best", "2-512steps"), ("3-256steps", "3-256steps")]
)
def test_the_student_that_is_asked_for(run, tmp_path, monkeypatch, student, name):
    taken = []
    monkeypatch.setattr(
        "bsa_lightning.distillation.export.export_student", lambda folder, dst, scores: taken.append((folder, scores))
    )
    command.export(run, tmp_path / "out", student)
    ((folder, scores),) = taken
    assert folder == run / "rounds" / name
    assert any("Student (bsa)" in line for line in scores)


def test_a_run_that_was_stopped_in_its_first_scoring_is_exported_without_a_table(run, tmp_path, monkeypatch, capsys):
    (run / "scores.csv").unlink()
    ScoreFile(run / "scores.csv").append(Score("reference", "", 0, 0, "", 0.0, 0, 0, 8, {"fd_logmel": 1.0}, ""))
    taken = []
    monkeypatch.setattr(
        "bsa_lightning.distillation.export.export_student", lambda folder, dst, scores: taken.append(scores)
    )
    command.export(run, tmp_path / "out")
    assert taken == [[]]
    assert "the card has no table of scores, since" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "out"], "run is nowhere, which does not exist"),
        (["empty", "out"], "has no finished student in rounds/"),
        (["run/scores.csv", "out"], "run is run/scores.csv, which is a file"),
        (["run/rounds/1-1024steps", "out", "--student", "best"], "another student; name the run, run"),
        (
            ["run", "out", "--student", "5-9steps"],
            'student is "5-9steps", but must be last, best or one of 1-1024steps',
        ),
        (["run", "out", "--student", "best", "--metric", "fad_vggish"], "has no fad_vggish of any"),
    ],
)
def test_mistakes(run, monkeypatch, capsys, words, message):
    monkeypatch.chdir(run.parent)
    (run.parent / "empty").mkdir()
    monkeypatch.setattr(sys, "argv", ["lightning", "export", *words])
    assert main() == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"num_steps": 4}, {"round": 7}, {"weighting": None}])
def test_a_student_whose_folder_has_the_name_of_another_is_refused(run, tmp_path, change):
    path = run / "rounds" / "3-256steps" / "provenance.json"
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    with pytest.raises(UserError, match=r"3-256steps (contains the student|is not the folder of a run's student)"):
        command.export(run, tmp_path / "out", "3-256steps")
    assert not (tmp_path / "out").exists()
