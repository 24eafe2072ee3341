import json
from pathlib import Path

import pytest
import torch

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.data import audio
from bsa_lightning.data.soundscape_questions import ASKED, NUM_ANSWERS, answers
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.evaluation.embeddings.base import ReadsCaptions
from bsa_lightning.evaluation.embeddings.soundscape_listener import WEIGHTS, SoundscapeListener
from bsa_lightning.evaluation.evaluator import Evaluator
from bsa_lightning.evaluation.folders import score_folders
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.paired_differences import compare, resample_all
from bsa_lightning.evaluation.row_store import RowStore
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.evaluation.systems import teacher_system
from bsa_lightning.models.loading import load_parts

CLIPS = Soundscapes(200, seed=303)
"""Which the listener has never heard."""
NUM_CLIPS = len(CLIPS)
LENGTH = {"sample_rate": 16_000, "num_samples": 40_960}
HEARS = {"first source": 0.98, "first count": 0.88, "first pitch": 0.96, "second source": 0.92, "background": 0.98}
"""Shares of right answers of the classifier that listen.py trained before it was shipped, less two or three points."""


@pytest.fixture(scope="module")
def listener():
    return SoundscapeListener()


@pytest.fixture(scope="module")
def waves():
    return torch.stack([CLIPS.waveform(i, **LENGTH) for i in range(NUM_CLIPS)])


@pytest.fixture(scope="module")
def rows(listener, waves):
    store = RowStore(listener.num_features)
    for first in range(0, NUM_CLIPS, 50):
        store.update(listener(waves[first : first + 50]), range(first, first + 50))
    return store.compute()


@pytest.fixture(scope="module")
def truth(listener):
    return listener.text([CLIPS.captions(i)[0] for i in range(NUM_CLIPS)])


def replies(rows):
    parts = rows.split([NUM_ANSWERS[question] for question in ASKED.values()], dim=1)
    return torch.stack([part.argmax(1) for part in parts], dim=1)


def guessing(truth):
    """Obedience of whoever always gives each question's most frequent answer."""
    return sum(float(column.long().bincount().max()) for column in truth.T) / truth.numel()


def test_it_hears_what_is_there(listener, rows, truth):
    right = (replies(rows.rows) == truth).double().mean(0)
    for name, share in zip(ASKED, right.tolist(), strict=True):
        assert share >= HEARS[name], name
    torch.testing.assert_close(listener.judge(rows.rows, truth).mean(), right.mean())


def test_right_answers_are_those_of_the_soundscape_and_not_of_its_words_alone(truth):
    drawn = [answers(CLIPS.soundscape(i)) for i in range(NUM_CLIPS)]
    assert truth.tolist() == [[found[question] for question in ASKED.values()] for found in drawn]


def test_other_captions_and_noise_are_at_guessing(listener, rows, truth):
    guess = guessing(truth)
    assert 0.4 < guess < 0.5
    order = torch.randperm(NUM_CLIPS, generator=torch.Generator().manual_seed(0))
    assert float(listener.judge(rows.rows, truth[order]).mean()) < guess + 0.05
    noise = torch.randn(50, 40_960, generator=torch.Generator().manual_seed(1))
    assert float(listener.judge(listener(noise).rows[:, 0], truth[:50]).mean()) < guess + 0.05


def test_the_share_of_right_answers_by_hand(listener):
    answers_of = torch.tensor([[1.0, 2, 2, 0, 4], [0, 0, 0, 0, 1]])
    scores = torch.zeros(2, listener.num_features)
    for row, given in enumerate([[1, 2, 1, 0, 4], [6, 4, 2, 5, 1]]):  # four of five, one of five
        first = 0
        for question, answer in zip(ASKED.values(), given, strict=True):
            scores[row, first + answer] = 1
            first += NUM_ANSWERS[question]
    assert listener.judge(scores, answers_of).tolist() == pytest.approx([0.8, 0.2])


def test_level_and_what_comes_after_a_clip_are_not_heard(listener, waves):
    expected = listener(waves[:4]).rows
    for other in (waves[:4] * 0.01, waves[:4] * 2, torch.cat([waves[:4] * 0.5, torch.ones(4, 16_000) * 0.3], dim=1)):
        clip = other[:, :40_960]
        torch.testing.assert_close(listener(clip).rows, expected, rtol=0, atol=2e-2)
    assert listener(torch.zeros(1, 40_960)).rows.isfinite().all()
    assert listener(waves[:2, :8000]).rows.shape == (2, 1, listener.num_features)
    assert not listener.train().network.training


def test_its_weights_are_small_and_known_by_their_hash(listener):
    assert listener.fingerprint == f"listener-1-{sha256_of_file(WEIGHTS)}"
    assert WEIGHTS.stat().st_size < 2.5e6
    package = Path(__file__).parents[3] / "bsa_lightning"
    assert sum(path.stat().st_size for path in package.rglob("*.safetensors")) < 20e6


def test_obedience_is_all_that_is_measured(listener, rows, truth):
    assert isinstance(listener, ReadsCaptions)
    measures = Measures(listener, rows, captions=truth, at_infinity=True)
    found = measures(rows)
    assert found == {"obedience": pytest.approx(float((replies(rows.rows) == truth).double().mean()))}
    few = rows.at(torch.tensor([3, 9, 11]))
    expected = (replies(few.rows) == truth[[3, 9, 11]]).double().mean()
    assert measures(few) == {"obedience": pytest.approx(float(expected))}
    assert measures.distances(rows) == {}
    other = rows.at(torch.arange(NUM_CLIPS))
    other.rows = other.rows.roll(1, 0)
    difference = compare(*(resample_all([measures], {"listener": of_system}) for of_system in (rows, other)))[
        "obedience"
    ]
    assert difference.low > 0.3


def test_captions_of_other_sound_have_no_obedience(listener, rows, truth, caplog):
    texts = [CLIPS.captions(i)[0] for i in range(NUM_CLIPS)]
    texts[7] = "A dog barks"
    measures = Measures(listener, rows, captions=listener.text(texts))
    assert measures(rows) == {}
    assert measures.left_out["obedience"].startswith("1 of 200 captions are not worded as those of soundscapes")
    assert "obedience is left out" in caplog.text
    assert resample_all([measures], {"listener": rows}) == {}


def test_folders_of_sound_with_captions_are_judged(listener, waves, truth, tmp_path):
    texts = {}
    for i in range(12):
        texts[f"clip-{i}"] = CLIPS.captions(i)[0]
        for side, wave in (("reference", waves[i]), ("generated", waves[i] if i < 6 else waves[i + 20])):
            (tmp_path / side).mkdir(exist_ok=True)
            audio.write(tmp_path / side / f"clip-{i}.wav", wave, sample_rate=16_000)
    (tmp_path / "captions.json").write_text(json.dumps(texts))
    sides = tmp_path / "reference", tmp_path / "generated"
    card = score_folders(*sides, embeddings=[listener], captions=tmp_path / "captions.json")
    made = torch.cat([waves[:6], waves[26:32]])
    expected = (replies(listener(made).rows[:, 0]) == truth[:12]).double().mean()
    assert card["scores"] == {"obedience": pytest.approx(float(expected), abs=0.02)}  # files are rounded to 16 bit
    assert card["embeddings"] == {"listener": listener.fingerprint}
    with pytest.raises(UserError, match="obedience compares sound with captions; name a file of captions"):
        score_folders(*sides, embeddings=[listener])


def test_a_run_judges_what_its_systems_make_of_their_captions(listener, tmp_path):
    teacher = load_parts("tiny")
    full_teacher = teacher_system(teacher.folder, num_steps=4, guidance_scale=1.0)  # one would be all but silent
    settings = ScoringSettings(
        Soundscapes(8, seed=303), num_captions=6, batch_size=4, embeddings=[listener], cache=tmp_path
    )
    evaluator = Evaluator(settings, teacher=teacher, full_teacher=full_teacher)
    made: dict[int, torch.Tensor] = {}
    score = evaluator.score(full_teacher, seed=0, on_clip=made.__setitem__, num_decoded=6)
    right = replies(listener(torch.stack([made[i] for i in range(6)])).rows[:, 0]).tolist()
    true = [[answers(CLIPS.soundscape(i))[question] for question in ASKED.values()] for i in range(6)]
    pairs = [a == b for said, known in zip(right, true, strict=True) for a, b in zip(said, known, strict=True)]
    assert score.metrics["obedience"] == pytest.approx(sum(pairs) / len(pairs))
    assert "fd_listener" not in score.metrics
    assert evaluator.halves().metrics == {}
