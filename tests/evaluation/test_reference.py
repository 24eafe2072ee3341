import json

import numpy as np
import pytest
import soundfile
import torch

from bsa_lightning.data.captions import TangoManifest
from bsa_lightning.evaluation.reference import TangoTestSet

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


def test_the_test_set_keeps_what_training_evens_out(listed):
    arguments, noise = listed
    size = {"sample_rate": RATE, "num_samples": 100}
    assert TangoManifest(*arguments).recorded(0) is None
    sound, rate = TangoTestSet(*arguments).recorded(0)
    assert rate == RATE
    torch.testing.assert_close(sound, torch.stack([noise + 0.05, (noise + 0.05) / 2]), **PCM16)
    assert TangoTestSet(*arguments).waveform(0, **size).abs().max() == 0.5


def test_clips_that_are_heard_otherwise_are_other_clips(listed):
    arguments, _ = listed
    made = [TangoManifest(*arguments), TangoTestSet(*arguments)]
    assert len({clips.fingerprint() for clips in made}) == 2
    assert made[1].fingerprint() == TangoTestSet(*arguments).fingerprint()
