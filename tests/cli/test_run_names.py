"""One name for a run, its students and models."""

import pytest

from bsa_lightning.cli.run_names import model_of, run_of, scored_runs
from bsa_lightning.common.errors import UserError


@pytest.fixture
def study(tmp_path):
    """A study of two runs, of which the first has two students and scores, and a fine-tuned teacher."""
    for name in ("study/a/rounds/1-4steps", "study/a/rounds/2-2steps", "study/b", "tuned/model"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("study/a", "study/b", "tuned"):
        (tmp_path / name / "environment.json").write_text("{}")
    for name in ("1-4steps", "2-2steps"):
        (tmp_path / "study/a/rounds" / name / "provenance.json").write_text("{}")
    (tmp_path / "study/a/scores.csv").write_text("")
    (tmp_path / "tuned/model/model_index.json").write_text("{}")
    (tmp_path / "note.txt").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "run", "student"),
    [
        ("study/a", "study/a", None),
        ("study/a/rounds", "study/a", None),
        ("study/a/rounds/1-4steps", "study/a", "1-4steps"),
    ],
)
def test_a_run_is_found_by_all_its_folders(study, path, run, student):
    assert run_of(study / path, setting="run") == (study / run, student)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("study/a", "study/a/rounds/2-2steps"),
        ("study/a/rounds", "study/a/rounds/2-2steps"),
        ("study/a/rounds/1-4steps", "study/a/rounds/1-4steps"),
        ("tuned", "tuned/model"),
        ("tuned/model", "tuned/model"),
    ],
)
def test_a_model_is_found_by_its_run(study, path, model):
    assert model_of(study / path) == study / model


def test_names_that_are_no_folders_are_left_to_the_registry():
    assert model_of("tiny") == "tiny"
    assert model_of("owner/name") == "owner/name"


@pytest.mark.parametrize(
    ("find", "path", "text"),
    [
        (run_of, "study", "run is {}/study, which holds several runs: {}/study/a, {}/study/b; name one"),
        (run_of, "note.txt", "run is {}/note.txt, which is a file"),
        (run_of, "nowhere", "run is {}/nowhere, which does not exist"),
        (model_of, "note.txt", "run is {}/note.txt, which is a file"),
        (model_of, "study/b", "run is {}/study/b, a run without a finished student"),
    ],
)
def test_what_names_no_run_or_several_is_said(study, find, path, text):
    with pytest.raises(UserError) as refused:
        find(study / path, setting="run")
    assert str(refused.value).startswith(text.replace("{}", str(study)))


def test_a_folder_of_runs_stands_for_them_and_runs_without_scores_are_left_out(study):
    a, b = study / "study/a", study / "study/b"
    assert scored_runs([study / "study"]) == ([a], [b])
    assert scored_runs([a / "rounds/1-4steps", b]) == ([a], [b])
    assert scored_runs([b]) == ([b], [])  # whose report says what it lacks
