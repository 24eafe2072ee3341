import re
from types import SimpleNamespace

import pytest

from bsa_lightning.cli import generate
from bsa_lightning.cli.captions_alone import CaptionsAlone
from bsa_lightning.data.soundscapes import NUM_WORDINGS, Soundscape, possible_backgrounds, possible_events
from bsa_lightning.generation.predict import Generation
from bsa_lightning.models import vocabulary
from bsa_lightning.models.vocabulary import unknown_words, warn_of_unknown_words
from experiments.builtin_teacher.recordings import PHRASES, PLACES


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(vocabulary, "_warned", set())


def test_words_are_those_of_the_captions_of_soundscapes():
    events = [*possible_events(longest=2), *possible_events(longest=4)]
    background, *backgrounds = possible_backgrounds()
    alone = [Soundscape((event,), None, 0) for event in events] + [Soundscape((), each, 0) for each in backgrounds]
    whole = [Soundscape((events[0], events[1]), background, wording) for wording in range(NUM_WORDINGS)]
    captions = [soundscape.caption() for soundscape in alone + whole]
    assert words_of(captions) == set(vocabulary.SOUNDSCAPES.split())
    assert unknown_words(captions) == []


def test_words_of_recordings_are_those_that_the_teacher_was_trained_on():
    captions = [phrase for phrases in PHRASES for phrase in phrases] + [*PLACES]
    assert unknown_words(captions) == []


def words_of(captions):
    return {word for caption in captions for word in re.findall("[a-z]+", caption.lower())}


def test_unknown_words_come_once_in_their_order():
    assert unknown_words(["A cat purrs", "2 cats' bells", "a CAT's bell", "", "Zwei Glöckchen, then wind"]) == [
        "cat", "purrs", "2", "cats", "cat's", "zwei", "glöckchen",
    ]  # fmt: skip


def test_the_help_of_generate_lists_them():
    said = " ".join(generate.generate.__doc__.split())
    listed = re.search(r"alone: (.*?)\.", said)[1]
    words = {form for word in listed.split(", ") for form in (word.partition("(")[0], word.replace("(", "").strip(")"))}
    assert words == set(vocabulary.SOUNDSCAPES.split())
    for example in re.findall(r"[\w ]+", re.search(r"recordings \((.*?)\)", said)[1]):
        assert unknown_words([example]) == []


def test_one_warning_names_all_words(caplog):
    warn_of_unknown_words("tiny", ["A cow moos", "a cat"])
    warn_of_unknown_words("tiny", ["A cow", "wind"])
    (record,) = caplog.records
    assert 'does not know "cow", "moos", "cat", and makes some other sound of that' in record.getMessage()
    warn_of_unknown_words("tiny", [" ".join(f"x{i}" for i in range(14))])
    assert '"x11" and 2 others, and makes' in caplog.text


def test_another_teacher_may_know_them(teacher_folder, caplog):
    warn_of_unknown_words(teacher_folder, ["A cow moos"])
    assert not caplog.records


def test_generate_warns_once_for_all_batches(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(generate, "_BATCH_SIZE", 1)
    generate.run(["generate", "A cow", "a cat", "--steps", "1", "--out", str(tmp_path)])
    assert [record.getMessage()[:60] for record in caplog.records if "know" in record.getMessage()] == [
        'the built-in teacher does not know "cow", "cat", and makes s'
    ]


def test_predict_and_distill_warn_of_all_captions_at_once(tmp_path, caplog):
    module = Generation("tiny")
    module.trainer = SimpleNamespace(datamodule=SimpleNamespace(captions=["wind", "a hen", "a cat"]))
    module.on_predict_start()
    (tmp_path / "captions.txt").write_text("wind\na cow\na hen\na pig\n")
    CaptionsAlone("tiny", tmp_path / "captions.txt", tmp_path / "out", (2, 1))._clips()
    said = [record.getMessage().partition(", and makes")[0] for record in caplog.records]
    assert said == [f"the built-in teacher does not know {words}" for words in ('"hen", "cat"', '"cow", "pig"')]
