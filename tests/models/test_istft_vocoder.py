import math

import pytest
import torch
from tolerances import FLOAT32

from bsa_lightning.models.istft_vocoder import ISTFTVocoder, limit
from bsa_lightning.models.mel import LogMel


@pytest.fixture(scope="module")
def vocoder():
    """One whose network says nothing, so that magnitudes follow from the bands alone."""
    torch.manual_seed(0)
    made = ISTFTVocoder(hidden_size=16, num_layers=1).eval()
    made.bands.copy_(LogMel().mel.mel_scale.fb)
    torch.nn.init.zeros_(made.out.weight)
    torch.nn.init.zeros_(made.out.bias)
    return made


@pytest.fixture(scope="module")
def log_mel():
    noise = torch.randn(2, 64 * 160, generator=torch.Generator().manual_seed(1))
    return LogMel()(0.1 * noise * torch.linspace(0.2, 1.0, 64 * 160))


@torch.no_grad()
def test_magnitudes_have_the_energy_of_the_bands(vocoder, log_mel):
    magnitude = vocoder.magnitudes(log_mel)
    assert magnitude.shape == (2, 513, 64)
    again = torch.einsum("bkf,km->bfm", magnitude, vocoder.bands)
    assert float((again.log() - log_mel).abs().mean()) < 0.03


@torch.no_grad()
def test_the_sound_has_the_log_mel_that_was_asked_for(vocoder, log_mel):
    sound = vocoder(log_mel)
    assert sound.shape == (2, 64 * 160)
    difference = LogMel()(sound) - log_mel
    assert float(difference.abs().mean()) < 0.25
    assert float(difference.mean()) == pytest.approx(math.log(1.06), abs=0.05)


@torch.no_grad()
def test_a_chirp_stays_near_the_peak_it_had(vocoder):
    """Whose energy lies in a pulse of twice the height when phases are sought without a ceiling."""
    seconds = torch.arange(16_000) / 16_000
    chirp = 0.5 * torch.sin(2 * math.pi * (500 + 1000 * seconds) * seconds)[None]
    sound = vocoder(LogMel()(chirp))
    assert float(sound.abs().max()) < 0.7
    assert float(sound.square().mean() / chirp.square().mean()) == pytest.approx(1.0, abs=0.3)


@torch.no_grad()
def test_the_sound_is_a_function_of_the_log_mel(vocoder, log_mel):
    torch.manual_seed(1)
    first = vocoder(log_mel)
    torch.manual_seed(2)
    torch.testing.assert_close(vocoder(log_mel[:1]), first[:1], **FLOAT32)


@torch.no_grad()
def test_the_loudest_spectrogram_does_not_reach_full_scale(vocoder, log_mel):
    sound = vocoder(log_mel + 6.0)
    assert float(sound.abs().max()) < 1.0
    assert float(sound.abs().max()) > 0.98


def test_the_limit_leaves_what_is_soft_and_is_smooth_at_its_knee():
    wave = torch.linspace(-0.9, 0.9, 19)
    assert torch.equal(limit(wave), wave)
    wave = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    limited = limit(wave)
    slope = limited.diff() / wave.diff()
    assert float(slope.min()) > 0
    assert float(slope.max()) <= 1 + 1e-9
    assert float(slope.diff().abs().max()) < 0.03  # no corner
    torch.testing.assert_close(limited, -limited.flip(0))
    assert float(limit(torch.tensor(1.0))) == pytest.approx(0.95)


def test_a_saved_one_carries_its_code_and_opens_again(vocoder, log_mel, tmp_path):
    vocoder.save_pretrained(tmp_path)
    assert (tmp_path / "istft_vocoder.py").is_file()
    again = ISTFTVocoder.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(log_mel), vocoder(log_mel))


def test_a_negative_number_of_iterations_is_refused():
    with pytest.raises(ValueError, match="num_iterations is -1"):
        ISTFTVocoder(num_iterations=-1)
