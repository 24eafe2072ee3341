import json

import numpy as np
import pytest
import soundfile
import torch

from bsa_lightning.data.captions import TangoManifest
from bsa_lightning.evaluation.reference import Reader, TangoTestSet

RATE = 16_000
PCM16 = {"rtol": 0.0, "atol": 2 / 32768}
"""A file and a waveform that were rounded to 16 bit in different places."""


@pytest.fixture
def listed(tmp_path):
    """A list of one stereo clip of half a second, whose channels differ in level, around a mean of 0.05."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, RATE // 2)
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", np.stack([noise + 0.05, (noise + 0.05) / 2], axis=1), RATE)
    (tmp_path / "list.json").write_text(json.dumps({"location": "x/a.wav", "captions": "Noise"}) + "\n")
    return (tmp_path / "list.json", tmp_path / "audio"), torch.from_numpy(noise).float()


@pytest.mark.parametrize(
    ("flags", "scale", "mean"),
    [
        ({}, 1, 0.05),
        ({"channel_mean": True}, 0.75, 0.05 * 0.75),
        ({"remove_dc": True}, 1, None),
        ({"channel_mean": True, "remove_dc": True}, 0.75, None),
    ],
)
def test_readers_differ_as_their_flags_say(listed, flags, scale, mean):
    (jsonl, folder), noise = listed
    wave = scale * noise + (-scale * noise.mean() if mean is None else mean)
    read = Reader(**flags).read(folder / "a.wav", sample_rate=RATE)
    torch.testing.assert_close(read, wave, **PCM16)
    size = {"sample_rate": RATE, "num_samples": RATE}
    clip = TangoTestSet(jsonl, folder, **flags).waveform(0, **size)
    torch.testing.assert_close(clip, torch.cat([read, torch.zeros(RATE // 2)]), rtol=0, atol=0)


def test_the_test_set_keeps_the_level_that_training_evens_out(listed):
    arguments, noise = listed
    size = {"sample_rate": RATE, "num_samples": 100}
    assert TangoManifest(*arguments).waveform(0, **size).abs().max() == 0.5
    torch.testing.assert_close(TangoTestSet(*arguments).waveform(0, **size), noise[:100] + 0.05, **PCM16)
    assert TangoTestSet(*arguments).waveform(0, num_channels=2, **size).shape == (2, 100)


def test_clips_that_are_read_otherwise_are_other_clips(listed):
    arguments, _ = listed
    made = [TangoManifest(*arguments), TangoTestSet(*arguments), TangoTestSet(*arguments, remove_dc=True)]
    assert len({clips.fingerprint() for clips in made}) == 3
    assert made[1].fingerprint() == TangoTestSet(*arguments).fingerprint()
