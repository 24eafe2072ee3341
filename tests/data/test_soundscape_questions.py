from itertools import product

import numpy as np
import pytest

from bsa_lightning.data.soundscape_questions import ASKED, NUM_ANSWERS, answers, read_caption
from bsa_lightning.data.soundscapes import (
    NUM_WORDINGS,
    Background,
    Event,
    Soundscape,
    draw,
    possible_backgrounds,
    possible_events,
)


def test_a_caption_gives_every_answer_of_the_soundscape_that_it_was_made_from():
    """Of 20,000 draws, and not of the asked questions alone: no caption is ambiguous."""
    for i in range(20_000):
        soundscape = draw(np.random.default_rng([77, i]))
        found = read_caption(soundscape.caption())
        assert found is not None, soundscape.caption()
        assert answers(found) == answers(soundscape), soundscape.caption()


def test_all_captions_that_can_be_drawn_are_different_unless_they_mean_the_same():
    """The whole of it, but for two groups of events over every background: of those, one background."""
    backgrounds = [None, *possible_backgrounds()]
    groups = [((), backgrounds[1:]), *(((event,), backgrounds) for event in possible_events(longest=4))]
    short = list(possible_events(longest=2))
    groups += [(pair, backgrounds[i % 6 : i % 6 + 1]) for i, pair in enumerate(product(short, repeat=2))]
    meanings: dict[str, list[int]] = {}
    for events, some in groups:
        for background, wording in product(some, range(NUM_WORDINGS)):
            soundscape = Soundscape(events, background, wording)
            assert meanings.setdefault(soundscape.caption(), answers(soundscape)) == answers(soundscape)
    assert len(meanings) > 10_000
    for caption in list(meanings)[::50]:
        found = read_caption(caption)
        assert found is not None
        assert answers(found) == meanings[caption]


def test_what_can_be_drawn_is_what_is_listed():
    drawn = [draw(np.random.default_rng([78, i])) for i in range(5000)]
    said = {event.phrase() for soundscape in drawn for event in soundscape.events}
    assert said == {event.phrase() for event in possible_events(longest=4)}
    assert {s.background for s in drawn if s.background} == set(possible_backgrounds())


def test_answers_by_hand():
    soundscape = read_caption("A low hum, with two quick high short beeps followed by a rising chirp")
    assert soundscape is None  # length comes before pitch
    soundscape = read_caption("A low hum, with two quick short high beeps followed by a rising chirp")
    assert soundscape is not None
    assert answers(soundscape) == [1, 2, 2, 0, 2, 0, 4, 1, 1, 1, 1, 1, 1, 0]
    assert [answers(soundscape)[i] for i in ASKED.values()] == [1, 2, 2, 4, 1]
    assert all(answer < number for answer, number in zip(answers(soundscape), NUM_ANSWERS, strict=True))
    assert answers(Soundscape((), Background("wind", ""), 0)) == [0] * 12 + [3, 1]
    knock = Event("knock", 1, "", "", "", False)
    assert read_caption("A knock") == Soundscape((knock,), None, 0)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a",
        "A dog barks",
        "a beep",  # captions begin with a capital letter
        "A beep ",
        "A beep.",
        "A beep\n",
        "Two beep",
        "A beeps",
        "One beep",
        "Five beeps",
        "A high click",  # clicks have no pitch
        "A chirp",  # chirps have a direction
        "A quick beep",  # one sound has no tempo
        "A hum",  # hums are low or high
        "Two long beeps",
        "Three quick bells",
        "A beep, then a bell, then a knock",
        "Three beeps, then a bell",  # which would not fit a clip
        "Wind over rain",
        "Wind, with ",
        "Wind, with a beep over rain",
        "A beep over wind over rain",
        "A beep over",
        "A beep and a bell",
        " over wind",
    ],
)
def test_other_captions_are_not_read(caption):
    assert read_caption(caption) is None
