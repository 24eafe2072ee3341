"""Growing damage to real recordings raises every distance."""

from pathlib import Path

import pytest
import torch
from torchaudio.functional import lowpass_biquad

from bsa_lightning.data.captions import AudioCapsManifest
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.row_store import RowStore

ESC10 = Path(__file__).resolve().parents[4] / "shared" / "data" / "esc10"
RATE, SECONDS = 16_000, 3

pytestmark = pytest.mark.skipif(not ESC10.is_dir(), reason=f"no recordings in {ESC10}")


def noise(waves, snr):
    made = torch.randn(waves.shape, generator=torch.Generator().manual_seed(0))
    power = waves.square().mean(1, keepdim=True) / made.square().mean(1, keepdim=True)
    return waves + made * (power * 10 ** (-snr / 10)).sqrt()


def band_loss(waves, cutoff):
    for _ in range(3):
        waves = lowpass_biquad(waves, RATE, cutoff)
    return waves


def smearing(waves, width):
    """Magnitudes averaged over ``width`` frames on both sides, with the phases that they had."""
    window = torch.hann_window(512)
    spectrum = torch.stft(waves, 512, 128, window=window, return_complex=True)
    smooth = torch.nn.functional.avg_pool1d(spectrum.abs(), 2 * width + 1, 1, width, count_include_pad=False)
    return torch.istft(torch.polar(smooth, spectrum.angle()), 512, 128, window=window, length=waves.shape[1])


@pytest.fixture(scope="module")
def waves():
    clips = AudioCapsManifest(ESC10 / "test.csv", ESC10 / "audio")
    size = {"sample_rate": RATE, "num_samples": SECONDS * RATE}
    return torch.stack([clips.waveform(i, **size) for i in range(0, len(clips), 2)])


@pytest.fixture(scope="module")
def distances(waves):
    """Of the recordings, damaged, from themselves: a protocol's captions are those of its reference too.

    Between two halves of them, smearing over 17 frames lowers the log-mel distance (10.4 to 9.6): evener sounds are
    nearer to the average of others.
    """
    embedding = LogMelStatistics()

    def rows(sounds):
        store = RowStore(embedding.num_features)
        store.update(embedding(embedding.reading.as_file(sounds)), range(len(sounds)))
        return store.compute()

    measures = Measures(embedding, rows(waves))
    return lambda sounds: measures(rows(sounds))


@pytest.mark.parametrize(
    ("damage", "degrees"),
    [(noise, (40, 30, 20, 10)), (band_loss, (7000, 4000, 2000, 1000)), (smearing, (2, 8, 32))],
)
def test_damage_raises_every_distance(waves, distances, damage, degrees):
    found = [distances(waves), *(distances(damage(waves, degree)) for degree in degrees)]
    for name in ("fd_logmel", "kad_logmel"):
        values = [scores[name] for scores in found]
        assert values == sorted(values), name
    assert found[0]["fd_logmel"] == pytest.approx(0, abs=1e-9)
