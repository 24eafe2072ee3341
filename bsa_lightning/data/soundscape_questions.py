"""Questions about the attributes of a soundscape, their true answers, and the answers that a caption implies."""

from __future__ import annotations

import functools
import re

from bsa_lightning.data import synthesis
from bsa_lightning.data.soundscapes import (
    BACKGROUNDS,
    EVENTS,
    NUM_WORDINGS,
    SPACING,
    Background,
    Event,
    Soundscape,
    possible_backgrounds,
    possible_events,
)

PITCHES = ("low", "", "high")
EVENT_QUESTIONS = (len(EVENTS) + 1, 5, len(PITCHES), len(synthesis.LENGTHS), len(SPACING), 2)
BACKGROUND_QUESTIONS = (len(BACKGROUNDS) + 1, len(PITCHES))
NUM_ANSWERS = (*EVENT_QUESTIONS, *EVENT_QUESTIONS, *BACKGROUND_QUESTIONS)
"""The number of possible answers to each question, in the order of :func:`answers`."""
ASKED = {"first source": 0, "first count": 1, "first pitch": 2, "second source": 6, "background": 12}
"""The questions with which adherence to a caption is measured, each with its place among all questions.

A caption determines the answers: a pitch that it does not mention is the middle one, and a second group of events or a
background that it does not mention is absent.
"""
_THEN = re.compile(", then | followed by ")


def answers(soundscape: Soundscape) -> list[int]:
    """The class index of each attribute: of two groups of events, then of the background; zeros if absent."""
    groups: list[int] = []
    for i in range(2):
        groups += _event_answers(soundscape.events[i]) if i < len(soundscape.events) else [0] * len(EVENT_QUESTIONS)
    background = soundscape.background
    if background is None:
        return [*groups, 0, 0]
    return [*groups, BACKGROUNDS.index(background.source) + 1, PITCHES.index(background.pitch)]


def read_caption(caption: str) -> Soundscape | None:
    """The soundscape that a caption describes; ``None`` if no soundscape has exactly this caption."""
    parts = _grammar().fullmatch(caption[:1].lower() + caption[1:])
    if parts is None:
        return None
    phrases = _THEN.split(parts["events"]) if parts["events"] else []
    known = _events(longest=2 if len(phrases) > 1 else 4)
    if len(phrases) > 2 or any(phrase not in known for phrase in phrases):
        return None
    background = _backgrounds().get(parts["before"] or parts["after"])
    if not phrases and background is None:
        return None
    events = tuple(known[phrase] for phrase in phrases)
    found = (Soundscape(events, background, wording) for wording in range(NUM_WORDINGS))
    # The grammar accepts more than the captions of soundscapes, so the caption is compared with the soundscape's.
    return next((soundscape for soundscape in found if soundscape.caption() == caption), None)


@functools.cache
def _grammar() -> re.Pattern[str]:
    """The grammar of captions, with a background before or after events: "wind, with a beep", "a beep over wind"."""
    background = "|".join(_backgrounds())
    return re.compile(
        rf"(?:(?P<before>{background})(?:, with )?)?(?P<events>.*?)(?: (?:over|and) (?P<after>{background}))?"
    )


@functools.cache
def _events(*, longest: int) -> dict[str, Event]:
    return {event.phrase(): event for event in possible_events(longest=longest)}


@functools.cache
def _backgrounds() -> dict[str, Background]:
    return {background.phrase(): background for background in possible_backgrounds()}


def _event_answers(event: Event) -> list[int]:
    return [
        EVENTS.index(event.source) + 1,
        event.count,
        PITCHES.index(event.pitch),
        list(synthesis.LENGTHS).index(event.length),
        list(SPACING).index(event.tempo),
        int(event.rising and event.source == "chirp"),
    ]
