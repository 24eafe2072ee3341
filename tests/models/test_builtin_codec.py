"""What the codec of the built-in teachers makes of sound that it never heard: nothing is cut, and words still hold."""

from pathlib import Path

import pytest
import torch

from bsa_lightning.data.captions import AudioCapsManifest
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.evaluation.embeddings.soundscape_listener import SoundscapeListener
from bsa_lightning.models.loading import load_codec

ESC10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "esc10"
SIZE = {"sample_rate": 16_000, "num_samples": 40_960}
SOUNDSCAPES = Soundscapes(48, seed=977)


@pytest.fixture(scope="module")
def codec():
    return load_codec("tiny")


@pytest.fixture(scope="module")
def soundscapes():
    return torch.stack([SOUNDSCAPES.waveform(i, **SIZE) for i in range(len(SOUNDSCAPES))])


@pytest.fixture(scope="module")
def copies(codec, soundscapes):
    return codec.decode(codec.encode(soundscapes).mean)


@pytest.fixture(scope="module")
def recordings():
    if not ESC10.is_dir():
        pytest.skip("ESC-10 is not here")
    clips = AudioCapsManifest(ESC10 / "test.csv", ESC10 / "audio")
    return torch.stack([clips.waveform(i, **SIZE) for i in range(len(clips))])


def test_the_log_mel_comes_back(codec, soundscapes, copies):
    """The mean over bands and frames of the absolute difference; the AutoencoderKL before had 0.5."""
    assert float((codec.log_mel(copies) - codec.log_mel(soundscapes)).abs().mean()) < 0.4


def test_no_soundscape_is_cut_and_its_peak_stays(soundscapes, copies):
    assert float(copies.abs().max()) < 0.999
    change = 20 * torch.log10(copies.abs().amax(1) / soundscapes.abs().amax(1))
    assert abs(float(change.median())) < 1.0


def test_no_recording_is_cut_and_its_peak_stays(codec, recordings):
    copies = torch.cat([codec.decode(codec.encode(each).mean) for each in recordings.split(16)])
    assert float(copies.abs().max()) < 0.999
    change = 20 * torch.log10(copies.abs().amax(1) / recordings.abs().amax(1))
    assert abs(float(change.median())) < 1.0


def test_the_listener_hears_the_same_in_the_copies(copies):
    listener = SoundscapeListener()
    captions = listener.text([SOUNDSCAPES.captions(i)[0] for i in range(len(SOUNDSCAPES))])
    assert float(listener.judge(listener(copies).rows[:, 0], captions).mean()) > 0.9


def test_loud_latents_do_not_reach_full_scale(codec, soundscapes):
    """Guidance makes latents that no sound has."""
    assert float(codec.decode(1.5 * codec.encode(soundscapes[:8]).mean).abs().max()) < 1.0
