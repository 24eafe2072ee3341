"""The last line of a command: what was done, and what was left undone."""

import json
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import Timer

from bsa_lightning.cli.outcome import fit_outcome, predict_outcome, test_outcome
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.distillation.round_budget import RoundBudget
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.evaluation.scoring import Scoring
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.generation.predict import Captions

test_outcome.__test__ = False


def trainer(**changed):
    values = {"global_step": 5, "fast_dev_run": 0, "max_steps": -1, "max_epochs": -1, "current_epoch": 0}
    values |= {"callbacks": [], "limit_test_batches": 1.0, "limit_predict_batches": 1.0}
    return SimpleNamespace(**values | changed)


@pytest.fixture
def ladder():
    module = ProgressiveDistillation.__new__(ProgressiveDistillation)
    vars(module).update(plan=(plan := Plan(8, 2, 4)), round=1, round_start=4, budget=RoundBudget(plan))
    return module


def finish(run, *names):
    for name in names:
        (run / "rounds" / name).mkdir(parents=True)


@pytest.mark.parametrize(
    ("changed", "why", "how"),
    [
        ({"max_steps": 5}, "(trainer.max_steps is 5)", "--ckpt_path last --trainer.max_steps -1"),
        (
            {"max_epochs": 1, "current_epoch": 1},
            "(trainer.max_epochs is 1)",
            "--ckpt_path last --trainer.max_epochs -1",
        ),
        ({"callbacks": [Timer("00:00:00:00")]}, "(trainer.max_time is over)", "--trainer.max_time null"),
    ],
)
def test_a_fit_that_a_setting_ended_says_what_is_left(tmp_path, ladder, changed, why, how):
    finish(tmp_path, "1-4steps")
    outcome = fit_outcome(trainer(**changed), ladder, tmp_path)
    assert not outcome.is_whole
    assert outcome.text.startswith(f"stopped after 5 of 8 updates {why}, in round 2 of 2; 1 of 2 students finished; go")
    assert outcome.text.endswith(how)


def test_a_whole_fit_counts_rounds_and_updates(tmp_path, ladder):
    finish(tmp_path, "1-4steps", "2-2steps")
    outcome = fit_outcome(trainer(global_step=8), ladder, tmp_path)
    assert outcome.is_whole
    assert outcome.text == f"done: 2 rounds, 8 updates, all in {tmp_path}"


def test_a_whole_fit_names_the_rounds_that_went_back(tmp_path, ladder):
    ladder.plan = Plan(8, 2, 4, patience=2)
    finish(tmp_path, "1-4steps", "2-2steps")
    decisions = {
        "1-4steps": ["cooldown from update 3 to 4"],
        "2-2steps": ["rolled back to the weights after 2 updates"],
    }
    for name, said in decisions.items():
        (tmp_path / "rounds" / name / "provenance.json").write_text(json.dumps({"budget": {"decisions": said}}))
    outcome = fit_outcome(trainer(global_step=8), ladder, tmp_path)
    assert outcome.text == f"done: 2 rounds, 8 updates (rolled back to earlier weights: round 2), all in {tmp_path}"


def test_a_teacher_that_is_not_trained_to_the_end_is_told(tmp_path):
    outcome = fit_outcome(trainer(estimated_stepping_batches=9), SimpleNamespace(), tmp_path)
    assert outcome.text.startswith("stopped after 5 of 9 updates, so that the learning rate has not fallen to zero")
    assert fit_outcome(trainer(estimated_stepping_batches=5), SimpleNamespace(), tmp_path).is_whole


def test_a_test_that_scored_nothing_says_so(tmp_path, ladder):
    scoring = Scoring(ScoringSettings())
    outcome = test_outcome(trainer(callbacks=[scoring], limit_test_batches=0), ladder, tmp_path)
    assert not outcome.is_whole
    assert outcome.text.startswith("nothing was scored (trainer.limit_test_batches is 0)")


def test_clips_that_were_not_made_are_counted(tmp_path):
    data = Captions(tmp_path / "captions.txt")
    data.captions = ["a", "b", "c"]
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "0000-a.wav").touch()
    outcome = predict_outcome(trainer(limit_predict_batches=1), data, tmp_path)
    assert not outcome.is_whole
    assert outcome.text.startswith("made 1 of 3 clips, because of trainer.limit_predict_batches 1")
    for name in ("0001-b.wav", "0002-c.wav"):
        (tmp_path / "samples" / name).touch()
    assert predict_outcome(trainer(), data, tmp_path).text == f"done: 3 clips in {tmp_path / 'samples'}"
