"""Readings, beside what audioldm_eval does, written anew in numpy."""

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from bsa_lightning.common.errors import UserError
from bsa_lightning.data import audio
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.embeddings.reading import AsAudioldmEval, AsPublishedTango, AsPublishedTangoFAD, Plain

RATE = 16_000


def sound(rate, *, seconds=2.3, channels=2, offset=0.05):
    """Noise and a loud tone near the highest frequency, which a filter takes away and decimation does not."""
    generator, times = np.random.default_rng(0), np.arange(int(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 0.45 * rate * times)
    levels = 0.5 ** np.arange(channels)[:, None]
    return (levels * (0.1 * generator.standard_normal(len(times)) + tone + offset)).astype(np.float32)


def resampled(samples, rate):
    return torchaudio.functional.resample(torch.from_numpy(samples), rate, RATE).numpy()


def fd_reader(samples, rate, *, decimated):
    """The reader of FD, KL and IS: the first channel, no mean, 16 kHz, at least 32,000 samples."""
    first = samples[0] - samples[0].mean()
    if decimated and rate in (32_000, 48_000):
        heard = first[:: rate // RATE]
    else:
        heard = first if rate == RATE else resampled(first, rate)
    return np.concatenate([heard, np.zeros(max(0, 32_000 - len(heard)), np.float32)])


def fad_reader(samples, rate):
    """The reader of Tango's FAD: 16-bit integers, the mean of channels; 32 kHz is decimated."""
    integers = np.clip(np.round(samples.astype(np.float64) * 32768), -32768, 32767)
    mean = (integers / 32768).mean(0).astype(np.float32)
    if rate == 32_000:
        return mean[::2]
    return mean if rate == RATE else resampled(mean, rate)


PEERS = {
    "plain": (Plain(), lambda samples, rate: resampled(samples.mean(0), rate)),
    "plain, first channel": (Plain("first"), lambda samples, rate: resampled(samples[0], rate)),
    "as-audioldm-eval": (AsAudioldmEval(), lambda samples, rate: fd_reader(samples, rate, decimated=False)),
    "as-published-tango": (AsPublishedTango(), lambda samples, rate: fd_reader(samples, rate, decimated=True)),
    "as-published-tango, FAD": (AsPublishedTangoFAD(), fad_reader),
}


@pytest.mark.parametrize("seconds", [0.7, 2.3])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16_000, 22_050, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("name", PEERS)
def test_a_reading_hears_what_its_evaluator_hears(name, rate, channels, seconds):
    reading, peer = PEERS[name]
    samples = sound(rate, seconds=seconds, channels=channels)
    heard = reading(torch.from_numpy(samples)[None], rate=rate, sample_rate=RATE)
    assert reading.name == name
    np.testing.assert_allclose(heard[0].numpy(), peer(samples, rate), rtol=0, atol=1e-6)
    length = reading.num_samples(samples.shape[1], rate=rate, sample_rate=RATE)
    assert abs(length - heard.shape[1]) <= 1


def test_each_clip_of_a_batch_loses_its_own_mean():
    batch = torch.stack([torch.full((1, 40_000), 0.25), torch.full((1, 40_000), -0.5)])
    assert AsAudioldmEval()(batch, rate=RATE, sample_rate=RATE).abs().max() == 0


@pytest.mark.parametrize("reading", [Plain(), AsAudioldmEval()])
def test_generated_sound_is_heard_as_its_file_is_read(tmp_path, reading):
    """To the bit: half steps, full scale and beyond."""
    wave = torch.cat([torch.linspace(-1.2, 1.2, 4001), (torch.arange(-40, 40) + 0.5) / 32768, torch.tensor([1.0, -1])])
    audio.write(tmp_path / "a.wav", wave, sample_rate=RATE)
    read, rate = audio.recorded(tmp_path / "a.wav")
    assert rate == RATE
    assert torch.equal(reading.as_file(wave), read[0])


@pytest.mark.parametrize("reading", [AsPublishedTango(), AsPublishedTangoFAD()])
def test_tangos_vocoder_cuts_towards_zero(reading):
    wave = torch.tensor([0.9, -0.9, 1.7, -1.7, -0.2, 0.2]) / 32768
    assert (32768 * reading.as_file(wave)).tolist() == [0, 0, 1, -1, 0, 0]
    assert reading.as_file(torch.tensor([1.0, -1.0])).tolist() == [32767 / 32768, -1.0]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_recording_is_read_as_it_is(tmp_path, subtype):
    samples = sound(44_100, channels=3)
    soundfile.write(tmp_path / "a.wav", samples.T, 44_100, subtype=subtype)
    read, rate = audio.recorded(tmp_path / "a.wav")
    assert (rate, read.shape) == (44_100, samples.shape)
    np.testing.assert_allclose(read.numpy(), samples, rtol=0, atol={"PCM_16": 2**-15, "PCM_24": 2**-22}.get(subtype, 0))


def test_an_embedding_has_a_reading_of_its_own():
    assert LogMelStatistics().reading.name == "plain"
    assert LogMelStatistics(AsAudioldmEval()).reading.name == "as-audioldm-eval"
    with pytest.raises(UserError, match="reading is 'plain', but must be a Reading, such as Plain"):
        LogMelStatistics("plain")
    with pytest.raises(UserError, match="channels is 'left', but must be first or mean"):
        Plain("left")
