"""Synthetic captioned sound, deterministic from a seed: the data of the built-in teacher."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number, check_seed
from bsa_lightning.data import synthesis
from bsa_lightning.data.audio import fit_length, normalise
from bsa_lightning.data.clips import Clips

EVENTS = ("beep", "buzz", "bell", "chirp", "click", "knock")
BACKGROUNDS = ("hum", "engine", "wind", "rain")
NUMBERS = ("", "one", "two", "three", "four")
SPACING = {"slow": (0.60, 0.70), "": (0.36, 0.42), "quick": (0.17, 0.21)}
"""The range of the time from one onset to the next for each tempo, in seconds."""
NUM_WORDINGS = 6
"""The number of wordings of a caption, some of which are equal."""


@dataclass(frozen=True)
class Event:
    """A group of sounds of one source, one after the other. Words that the caption omits are empty.

    Args:
        source: the kind of sound, one of ``EVENTS``.
        count: the number of sounds, from 1 to 4.
        pitch: "low", "" (middle) or "high".
        length: "short", "" (medium) or "long".
        tempo: the tempo of several sounds: "slow", "" (medium) or "quick".
        rising: whether a chirp rises.
    """

    source: str
    count: int
    pitch: str
    length: str
    tempo: str
    rising: bool

    def phrase(self) -> str:
        """The words of the caption for these events, such as "three quick high beeps"."""
        direction = ("rising" if self.rising else "falling") if self.source == "chirp" else ""
        words = [self.tempo if self.count > 1 else "", self.length, self.pitch, direction, self.source]
        words = [word for word in words if word]
        if self.count > 1:
            return f"{NUMBERS[self.count]} {' '.join(words)}{'es' if self.source == 'buzz' else 's'}"
        return f"a {' '.join(words)}"

    def waveform(self, rng: np.random.Generator) -> synthesis.Wave:
        """The waveform from the first onset to the end of the last sound, (samples,)."""
        spacing = rng.uniform(*SPACING[self.tempo])
        sounds = [self._sound(rng) for _ in range(self.count)]
        onsets = [int(i * spacing * synthesis.SAMPLE_RATE) for i in range(self.count)]
        wave = np.zeros(max(onset + len(sound) for onset, sound in zip(onsets, sounds, strict=True)))
        for onset, sound in zip(onsets, sounds, strict=True):
            wave[onset : onset + len(sound)] += sound
        return wave

    def _sound(self, rng: np.random.Generator) -> synthesis.Wave:
        match self.source:
            case "beep":
                return synthesis.beep(rng, pitch=self.pitch, length=self.length)
            case "buzz":
                return synthesis.buzz(rng, pitch=self.pitch, length=self.length)
            case "bell":
                return synthesis.bell(rng, pitch=self.pitch)
            case "chirp":
                return synthesis.chirp(rng, rising=self.rising)
            case "click":
                return synthesis.click(rng)
            case _:
                return synthesis.knock(rng)


@dataclass(frozen=True)
class Background:
    """A sound that lasts for the whole clip; ``pitch`` is "" except for a hum."""

    source: str
    pitch: str

    def phrase(self) -> str:
        """The words of the caption for this background, such as "a low hum"."""
        match self.source:
            case "hum":
                return f"a {self.pitch} hum"
            case "engine":
                return "an engine"
            case _:
                return self.source

    def waveform(self, rng: np.random.Generator, *, num_samples: int) -> synthesis.Wave:
        match self.source:
            case "hum":
                return synthesis.hum(rng, num_samples=num_samples, pitch=self.pitch)
            case "engine":
                return synthesis.engine(rng, num_samples=num_samples)
            case "wind":
                return synthesis.wind(rng, num_samples=num_samples)
            case _:
                return synthesis.rain(rng, num_samples=num_samples)


@dataclass(frozen=True)
class Soundscape:
    """The content of a clip: up to two groups of events in order, over a background or over silence."""

    events: tuple[Event, ...]
    background: Background | None
    wording: int

    def caption(self) -> str:
        """The caption of the soundscape, in the wording that ``wording`` selects."""
        events = [event.phrase() for event in self.events]
        text = (", then " if self.wording % 2 else " followed by ").join(events)
        if self.background is not None:
            background = self.background.phrase()
            if not text:
                text = background
            elif self.wording % 3 == 0:
                text = f"{background}, with {text}"
            else:
                text = f"{text} over {background}" if self.wording % 3 == 1 else f"{text} and {background}"
        return text[0].upper() + text[1:]

    def waveform(self, rng: np.random.Generator, *, num_samples: int) -> synthesis.Wave:
        """The mixed waveform, (num_samples,), not normalised."""
        wave = np.zeros(num_samples)
        if self.background is not None:
            wave += rng.uniform(0.8, 1.2) * self.background.waveform(rng, num_samples=num_samples)
        onset = int(rng.uniform(0.05, 0.25) * synthesis.SAMPLE_RATE)
        for event in self.events:
            sound = rng.uniform(0.8, 1.1) * event.waveform(rng)
            end = min(num_samples, onset + len(sound))
            wave[onset:end] += sound[: max(0, end - onset)]
            onset = end + int(rng.uniform(0.12, 0.2) * synthesis.SAMPLE_RATE)
        return wave


def draw(rng: np.random.Generator) -> Soundscape:
    """Draws a soundscape: events alone, events over a background, a background alone, or two groups of events."""
    kind = str(rng.choice(["events", "layers", "background", "sequence"], p=[0.3, 0.35, 0.1, 0.25]))
    backed = kind in ("layers", "background") or (kind == "sequence" and rng.random() < 0.25)
    background = _draw_background(rng) if backed else None
    match kind:
        case "background":
            events: tuple[Event, ...] = ()
        case "sequence":
            events = (_draw_event(rng, longest=2), _draw_event(rng, longest=2))
        case _:
            events = (_draw_event(rng, longest=4),)
    return Soundscape(events=events, background=background, wording=int(rng.integers(NUM_WORDINGS)))


def _draw_event(rng: np.random.Generator, *, longest: int) -> Event:
    """Draws a group of at most ``longest`` sounds; one of at most two is never slow, so that two fit a clip."""
    source = str(rng.choice(EVENTS))
    count = int(rng.integers(1, longest + 1))
    tempo = _choose(rng, _tempos(source, longest=longest)) if count > 1 else ""
    return Event(
        source=source,
        count=count,
        pitch=_choose(rng, synthesis.PITCHES[source]) if source in synthesis.PITCHES else "",
        length=_choose(rng, _lengths(count, tempo)) if source in ("beep", "buzz") else "",
        tempo=tempo,
        rising=bool(rng.random() < 0.5),
    )


def _tempos(source: str, *, longest: int) -> list[str]:
    """The possible tempos of a group of several sounds."""
    return ["", *(["slow"] if longest > 2 else []), *(["quick"] if source not in ("bell", "chirp") else [])]


def _lengths(count: int, tempo: str) -> list[str]:
    """The possible lengths of tones, with which they do not overlap."""
    return ["", "short", "long"] if count == 1 else ["short"] if tempo == "quick" else ["", "short"]


def possible_events(*, longest: int) -> Iterator[Event]:
    """All events with at most ``longest`` sounds; ``rising`` varies for chirps only and is False for others."""
    for source, count in itertools.product(EVENTS, range(1, longest + 1)):
        for tempo in _tempos(source, longest=longest) if count > 1 else [""]:
            lengths = _lengths(count, tempo) if source in ("beep", "buzz") else [""]
            directions = (False, True) if source == "chirp" else (False,)
            for pitch, length, rising in itertools.product(synthesis.PITCHES.get(source, [""]), lengths, directions):
                yield Event(source, count, pitch, length, tempo, rising)


def possible_backgrounds() -> Iterator[Background]:
    """All backgrounds."""
    for source in BACKGROUNDS:
        for pitch in synthesis.PITCHES["hum"] if source == "hum" else [""]:
            yield Background(source, pitch)


def _draw_background(rng: np.random.Generator) -> Background:
    source = str(rng.choice(BACKGROUNDS))
    return Background(source=source, pitch=_choose(rng, synthesis.PITCHES["hum"]) if source == "hum" else "")


def _choose(rng: np.random.Generator, words: Iterable[str]) -> str:
    return str(rng.choice(list(words)))


class Soundscapes(Clips):
    """Synthetic captioned sound: beeps, bells, rain and the like. Clip i of a seed is always the same.

    Args:
        num_clips: the number of clips, from 1 to 2**31 - 1.
        seed: the seed of the clips, from 0 to 2**63 - 1; another seed gives other clips of the same distribution.

    Raises:
        UserError: if a number is out of its range.
    """

    def __init__(self, num_clips: int, seed: int = 0) -> None:
        check_number("num_clips", num_clips, whole=True, at_least=1, at_most=2**31 - 1)
        check_seed("seed", seed)
        self.num_clips = num_clips
        self.seed = seed

    def __len__(self) -> int:
        return self.num_clips

    def soundscape(self, i: int) -> Soundscape:
        """The soundscape of clip ``i``, which its caption describes."""
        return draw(self._rng(i))

    def id(self, i: int) -> str:
        return f"soundscape-{self.seed}-{i}"

    def captions(self, i: int) -> list[str]:
        return [self.soundscape(i).caption()]

    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        if sample_rate != synthesis.SAMPLE_RATE:
            raise UserError(
                f"sample_rate is {sample_rate}, but soundscapes are made at {synthesis.SAMPLE_RATE} Hz;"
                " use a teacher of that rate"
            )
        rng = self._rng(i)
        wave = draw(rng).waveform(rng, num_samples=num_samples)
        waveform = fit_length(normalise(torch.from_numpy(wave).float()), num_samples=num_samples)
        return waveform if num_channels == 1 else waveform.repeat(num_channels, 1)

    def _rng(self, i: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, i])
