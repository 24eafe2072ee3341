"""``lightning score --model``: a model by itself."""

import json
import sys

import pytest

from bsa_lightning.cli.main import main
from bsa_lightning.evaluation.evaluator import Evaluator
from bsa_lightning.evaluation.scores import Score

CLIPS = ("--clips", "Soundscapes", "--clips.num_clips", "12", "--clips.seed", "3")


@pytest.fixture
def score(monkeypatch, capsys, tmp_path):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lightning", "score", *words])
        code = main()
        return code, *capsys.readouterr()

    return run


def test_the_card_has_means_over_seeds_and_how_the_model_was_sampled(score, monkeypatch, tmp_path):
    asked = []

    def scored(_, system, *, seed):
        asked.append((system.num_steps, system.guidance, system.sampling_scale, seed))
        return Score("model", "", 0, 4, "outside", 2.0, 8, seed, 10, {"fd_logmel": 1.0 + seed, "trajectory_error": 0.0})

    monkeypatch.setattr(Evaluator, "score", scored)
    card = tmp_path / "card.json"
    words = ("--model", "tiny", *CLIPS, "--seeds", "[0,2]", "--steps", "4", "--guidance", "2")
    code, out, _ = score(*words, "--num_captions", "10", "--cache", str(tmp_path / "cache"), "--out", str(card))
    assert code == 0
    assert asked == [(4, "outside", 2.0, 0), (4, "outside", 2.0, 2)]
    content = json.loads(out)
    assert content == json.loads(card.read_text())
    assert content["scores"] == {"fd_logmel": 2.0}
    assert content["scores_by_seed"] == {"0": {"fd_logmel": 1.0}, "2": {"fd_logmel": 3.0}}
    assert (content["num_steps"], content["nfe"], content["guidance_scale"]) == (4, 8, 2.0)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("a", "b", "--model", "tiny", *CLIPS), "a and b would be folders of sound to score, but --model is given"),
        (("--model", "tiny"), "clips must be set"),
        (("--model", "tiny", *CLIPS, "--steps", "0"), "steps is 0, but must be a whole number, at least 1"),
        (("--model", "tiny", *CLIPS, "--steps", "5000"), "steps is 5000, but must be a finite number, at most 1024"),
        (("--model", "tiny", *CLIPS, "--num_captions", "0"), "num_captions is 0"),
        (("--model", "nowhere", *CLIPS), 'model is "nowhere", but no such folder exists'),
        (("--model", "tiny", *CLIPS, "--out", "."), "out is "),
    ],
)
def test_mistakes(score, words, text):
    code, out, err = score(*words)
    assert (code, out) == (2, "")
    assert text in err
