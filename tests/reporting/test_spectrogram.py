import io

import numpy as np
import pytest
from reporting.runs import RATE, sine, write_wav

from bsa_lightning.common.errors import UserError
from bsa_lightning.reporting.spectrogram import LEVELS, NUM_BANDS, Wave, mel_decibels, mel_png, outline, read


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("frequency", [220.0, 1000.0, 5000.0])
def test_a_sine_is_one_band_at_its_power(frequency, rate):
    decibels = mel_decibels(Wave(sine(frequency, rate=rate, amplitude=0.1), rate))
    middle = decibels[:, decibels.shape[1] // 2]
    assert 10 * np.log10(np.sum(10 ** (middle / 10))) == pytest.approx(-20, abs=0.1)
    mels = np.linspace(*(1127 * np.log1p(f / 700) for f in (50, rate / 2)), NUM_BANDS + 2)[1:-1]
    nearest = np.abs(mels - 1127 * np.log1p(frequency / 700)).argmin()
    assert abs(middle.argmax() - nearest) <= 1


def test_png_is_the_spectrogram_upside_down():
    from matplotlib import colormaps, image

    wave = Wave(sine(1000.0), RATE)
    pixels = image.imread(io.BytesIO(mel_png(wave)))[..., :3]
    decibels = mel_decibels(wave)
    assert pixels.shape == (*decibels.shape, 3)
    loudest = np.unravel_index(decibels.argmax(), decibels.shape)
    brightness = pixels.sum(-1)[::-1]
    assert brightness[loudest] == brightness.max()
    palette = (colormaps["magma"](np.linspace(0, 1, LEVELS))[:, :3] * 255).astype(np.uint8)
    used = {tuple(colour) for colour in np.rint(pixels.reshape(-1, 3) * 255).astype(int)}
    assert len(used) > 2
    assert used <= {tuple(int(value) for value in colour) for colour in palette}


@pytest.mark.parametrize("num_samples", [1, 100, 40960, 441000])
def test_pictures_stay_small(num_samples):
    wave = Wave(np.random.default_rng(0).uniform(-1, 1, num_samples).astype(np.float32), RATE)
    assert len(mel_png(wave)) < 30_000
    assert len(outline(wave)) < 6_000


def test_outline_spans_the_extremes():
    samples = np.zeros(240)
    samples[10], samples[20] = 1.0, -0.5
    points = [tuple(map(float, point.split())) for point in outline(Wave(samples, RATE))[1:-1].split("L")]
    assert len(points) == 480
    assert points[10] == (10, -0.5)
    assert points[480 - 21] == (20, 30.5)
    assert points[100] == (100, 19.5)


def test_read(tmp_path):
    write_wav(tmp_path / "a.wav", sine(440.0))
    wave = read(tmp_path / "a.wav")
    assert wave.seconds == 1.5
    np.testing.assert_allclose(wave.samples, sine(440.0), atol=1 / 16384)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match="cannot be read as audio"):
        read(tmp_path / "broken.wav")
    write_wav(tmp_path / "empty.wav", [])
    with pytest.raises(UserError, match="holds no samples"):
        read(tmp_path / "empty.wav")
