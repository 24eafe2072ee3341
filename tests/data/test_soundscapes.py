from itertools import pairwise

import numpy as np
import pytest
import torch

from bsa_lightning.common.errors import UserError
from bsa_lightning.data import synthesis
from bsa_lightning.data.soundscapes import BACKGROUNDS, EVENTS, Background, Event, Soundscape, Soundscapes, draw

LENGTH = {"sample_rate": 16_000, "num_samples": 40_960}


def event(source="beep", **words):
    return Event(**{"source": source, "count": 1, "pitch": "", "length": "", "tempo": "", "rising": False} | words)


def rng(seed=0):
    return np.random.default_rng(seed)


def peak_frequency(wave):
    return float(np.abs(np.fft.rfft(wave)).argmax()) * synthesis.SAMPLE_RATE / len(wave)


def test_a_clip_is_a_function_of_seed_and_number():
    clips = Soundscapes(4, seed=5)
    assert torch.equal(clips.waveform(2, **LENGTH), Soundscapes(9, seed=5).waveform(2, **LENGTH))
    assert not torch.equal(clips.waveform(2, **LENGTH), clips.waveform(3, **LENGTH))
    assert not torch.equal(clips.waveform(2, **LENGTH), Soundscapes(4, seed=6).waveform(2, **LENGTH))
    assert clips.fingerprint() == Soundscapes(4, seed=5).fingerprint() != Soundscapes(4, seed=6).fingerprint()


@pytest.mark.parametrize("i", range(12))
def test_clips_are_finite_audible_and_of_the_asked_length(i):
    wave = Soundscapes(12, seed=1).waveform(i, **LENGTH)
    assert wave.shape == (40_960,)
    assert wave.isfinite().all()
    assert float(wave.abs().max()) == pytest.approx(0.5)
    assert torch.equal(Soundscapes(12, seed=1).waveform(i, num_channels=2, **LENGTH), torch.stack([wave, wave]))


@pytest.mark.parametrize(
    ("soundscape", "caption"),
    [
        (
            Soundscape((event(count=3, length="short", pitch="high"),), Background("hum", "low"), wording=1),
            "Three short high beeps over a low hum",
        ),
        (Soundscape((event("click", count=2, tempo="slow"),), Background("wind", ""), 0), "Wind, with two slow clicks"),
        (Soundscape((), Background("engine", ""), 0), "An engine"),
        (Soundscape((event("buzz", count=2), event("chirp", rising=True)), None, 0),
         "Two buzzes followed by a rising chirp"),
        (Soundscape((event("bell"), event("knock")), None, 1), "A bell, then a knock"),
    ],
)  # fmt: skip
def test_captions_read_like_english(soundscape, caption):
    assert soundscape.caption() == caption


@pytest.mark.parametrize("source", ["beep", "bell"])
@pytest.mark.parametrize("pitch", ["low", "", "high"])
def test_a_pitch_is_in_the_range_that_its_word_means(source, pitch):
    low, high = synthesis.PITCHES[source][pitch]
    for seed in range(5):
        assert low * 0.98 <= peak_frequency(event(source, pitch=pitch).waveform(rng(seed))) <= high * 1.02


@pytest.mark.parametrize("ranges", synthesis.PITCHES.values(), ids=synthesis.PITCHES)
def test_ranges_of_pitch_do_not_touch(ranges):
    ordered = sorted(ranges.values())
    assert all(below[1] < above[0] for below, above in pairwise(ordered))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_as_many_sounds_are_heard_as_the_caption_counts(count):
    wave = np.abs(event("click", count=count).waveform(rng()))
    loud = np.flatnonzero(wave > 0.3 * wave.max())
    assert 1 + (np.diff(loud) > 0.1 * synthesis.SAMPLE_RATE).sum() == count


@pytest.mark.parametrize("rising", [True, False])
def test_chirps_move_the_way_they_say(rising):
    start, end = np.array_split(event("chirp", rising=rising).waveform(rng()), 2)
    assert (peak_frequency(end) > peak_frequency(start)) is rising


def test_the_distribution_has_every_source_alone_layered_and_in_order():
    drawn = [draw(rng(seed)) for seed in range(400)]
    assert {event.source for soundscape in drawn for event in soundscape.events} == set(EVENTS)
    assert {soundscape.background.source for soundscape in drawn if soundscape.background} == set(BACKGROUNDS)
    kinds = {(len(soundscape.events), soundscape.background is not None) for soundscape in drawn}
    assert kinds == {(0, True), (1, False), (1, True), (2, False), (2, True)}


def test_mistakes():
    with pytest.raises(UserError, match="num_clips is 0"):
        Soundscapes(0)
    with pytest.raises(UserError, match="sample_rate is 44100"):
        Soundscapes(1).waveform(0, sample_rate=44_100, num_samples=100)
