from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from tolerances import FLOAT32

from bsa_lightning.common.errors import UserError
from bsa_lightning.data import audio
from bsa_lightning.data.recording import Recording, inspect


def tone(rate, seconds=0.5, frequency=440.0):
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (48_000, 1)])
def test_any_format_rate_and_channel_count_is_read(tmp_path, suffix, rate, channels):
    path = tmp_path / f"tone{suffix}"
    wave = tone(rate)
    soundfile.write(path, np.stack([wave, *[np.zeros_like(wave)] * (channels - 1)], axis=1), rate)
    read = audio.read(path, sample_rate=16_000)
    assert len(read) == pytest.approx(8000, abs=1200 if suffix == ".mp3" else 10)  # mp3 pads with its frames
    middle = read[2000:6000].double()
    assert float(middle.square().mean().sqrt()) == pytest.approx(0.3 / 2**0.5, rel=0.02)
    assert int(torch.fft.rfft(middle).abs().argmax()) == round(440 * 4000 / 16_000)


@pytest.mark.parametrize(("in_file", "read"), [(1, [0, 0]), (2, [0, 1]), (3, [0, 1])])
def test_two_channels_are_the_files_first_two_or_its_only_one_twice(tmp_path, in_file, read):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (1600, in_file)).astype("float32")
    soundfile.write(tmp_path / "clip.wav", samples, 16_000, subtype="FLOAT")
    waveform = audio.read(tmp_path / "clip.wav", sample_rate=16_000, num_channels=2)
    assert torch.equal(waveform, torch.from_numpy(samples[:, read].T.copy()))
    other_rate = audio.read(tmp_path / "clip.wav", sample_rate=8_000, num_channels=2)
    torch.testing.assert_close(other_rate[0], audio.read(tmp_path / "clip.wav", sample_rate=8_000), **FLOAT32)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"not a sound", "cannot be read as audio"), (b"", "cannot be read as audio"), (None, "cannot be read as audio")],
    ids=["broken", "no bytes", "missing"],
)
def test_what_is_no_audio_is_refused_by_name(tmp_path, content, text):
    path = tmp_path / "clip.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=text) as error:
        audio.read(path, sample_rate=16_000)
    assert str(path) in str(error.value)


def test_a_file_without_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    with pytest.raises(UserError, match="has no samples"):
        audio.read(tmp_path / "empty.wav", sample_rate=16_000)


def test_a_file_that_does_not_say_how_long_it_is(tmp_path):
    """As encoders leave it that write to a pipe: the 36 bits of the length in a FLAC file are zero."""
    soundfile.write(tmp_path / "piped.flac", np.zeros(16_000), 16_000)
    content = bytearray((tmp_path / "piped.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "piped.flac").write_bytes(content)
    with pytest.raises(UserError, match="does not say how long it is, as an encoder leaves it"):
        audio.read(tmp_path / "piped.flac", sample_rate=16_000)


def test_normalised_has_no_mean_and_its_peak_at_one_half():
    wave = audio.normalise(torch.randn(1000) * 3 + 2)
    assert float(wave.mean()) == pytest.approx(0, abs=1e-6)
    assert float(wave.abs().max()) == pytest.approx(0.5, rel=1e-5)


def test_channels_lose_their_own_mean_and_keep_their_balance():
    loud, soft = torch.randn(1000), torch.randn(1000)
    wave = audio.normalise(torch.stack([4 * loud + 3, soft - 5]))
    assert wave.mean(-1).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert float(wave.abs().max()) == pytest.approx(0.5, rel=1e-5)
    assert float(wave[0].std() / wave[1].std()) == pytest.approx(float(4 * loud.std() / soft.std()), rel=1e-5)


def test_silence_and_a_constant_stay_silent():
    for wave in (torch.zeros(10), torch.full((1000,), 0.1)):
        assert not audio.normalise(wave).any()
        assert not audio.fit_length(audio.normalise(wave), num_samples=20).any()


@pytest.mark.parametrize("num_samples", [5, 10, 15])
def test_length_is_cut_or_padded_at_the_end(num_samples):
    wave = audio.fit_length(torch.arange(1.0, 11.0), num_samples=num_samples)
    assert wave.shape == (num_samples,)
    kept = min(num_samples, 10)
    torch.testing.assert_close(wave[:kept], torch.arange(1.0, kept + 1) / kept / 2)
    assert not wave[kept:].any()
    stereo = audio.fit_length(torch.stack([torch.arange(1.0, 11.0), torch.zeros(10)]), num_samples=num_samples)
    assert torch.equal(stereo, torch.stack([wave, torch.zeros(num_samples)]))


def test_written_files_are_16_bit_and_nothing_else_is_left(tmp_path):
    audio.write(tmp_path / "new" / "a.wav", torch.tensor([0.5, -2.0]), sample_rate=16_000)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.wav"]
    assert soundfile.info(tmp_path / "new" / "a.wav").subtype == "PCM_16"
    assert soundfile.read(tmp_path / "new" / "a.wav")[0].tolist() == [0.5, -1.0]
    audio.write(tmp_path / "b.wav", torch.tensor([[0.5, -2.0, 0.0], [0.0, 0.25, -0.25]]), sample_rate=16_000)
    assert soundfile.read(tmp_path / "b.wav")[0].tolist() == [[0.5, 0.0], [-1.0, 0.25], [0.0, -0.25]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_never_written(tmp_path, value):
    with pytest.raises(UserError, match=r"x.wav is not written, because its sound has samples that are not finite"):
        audio.write(tmp_path / "x.wav", torch.tensor([0.1, value, 0.2]), sample_rate=16_000)
    assert list(tmp_path.iterdir()) == []


def test_our_files_are_known_and_always_the_same_bytes(tmp_path):
    for name in ("a.wav", "b.wav"):
        audio.write(tmp_path / name, torch.tensor([0.5, -0.25]), sample_rate=16_000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    soundfile.write(tmp_path / "theirs.wav", np.zeros(3), 16_000)
    (tmp_path / "text.wav").write_text("bsa-lightning")
    (tmp_path / "folder.wav").mkdir()
    assert audio.is_ours(tmp_path / "a.wav")
    assert not any(audio.is_ours(tmp_path / name) for name in ("theirs.wav", "text.wav", "folder.wav", "none.wav"))


@pytest.mark.parametrize("num_channels", [1, 2])
def test_the_mean_of_all_channels(tmp_path, num_channels):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (1600, 5)).astype("float32")
    soundfile.write(tmp_path / "x.wav", samples, 16_000, subtype="FLOAT")
    waveform = audio.read(tmp_path / "x.wav", sample_rate=16_000, num_channels=num_channels, channels="mean")
    expected = torch.from_numpy(samples.mean(1))
    torch.testing.assert_close(waveform, expected if num_channels == 1 else expected.repeat(2, 1), **FLOAT32)


def test_an_odd_rate_gives_the_tone_that_an_even_one_gives(tmp_path):
    """44,101 to 16,000 is no ratio of small numbers."""
    for rate in (44_100, 44_101):
        soundfile.write(tmp_path / f"{rate}.wav", tone(rate, seconds=1), rate)
    even, odd = (audio.read(tmp_path / f"{rate}.wav", sample_rate=16_000) for rate in (44_100, 44_101))
    assert abs(len(even) - len(odd)) <= 1
    assert (even - odd)[500:15_500].abs().max() < 1e-3


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("sample_rate", [16_000, 44_100, 48_000])
def test_usual_rates_are_resampled_by_torchaudio_bit_by_bit(tmp_path, rate, sample_rate):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (rate // 10, 2)).astype("float32")
    soundfile.write(tmp_path / "x.wav", samples, rate, subtype="FLOAT")
    expected = torchaudio.functional.resample(torch.from_numpy(samples[:, 0].copy()), rate, sample_rate)
    assert torch.equal(audio.read(tmp_path / "x.wav", sample_rate=sample_rate), expected)


@pytest.mark.parametrize("scale", [2.0**-10, 1.0, 2.0**40, 2.0**100, 2.0**127])
def test_normalisation_takes_any_level(scale):
    wave = torch.randn(1000).clamp(-1, 1)
    torch.testing.assert_close(audio.normalise(wave * scale), audio.normalise(wave), rtol=0, atol=2e-5)


def recording(tmp_path, samples, seconds=1.0, rate=1000, **how):
    soundfile.write(tmp_path / "x.wav", samples, rate, subtype="FLOAT")
    return inspect(tmp_path / "x.wav", seconds=seconds, **how)


def test_what_is_said_of_a_recording(tmp_path):
    sound = 0.9 * np.sin(0.1 * np.arange(1000))
    quiet = Recording(silent=True, clipped=False, cut=False, other_channels=False, seconds=1.0)
    fine = Recording(silent=False, clipped=False, cut=False, other_channels=False, seconds=1.0)
    assert recording(tmp_path, sound) == fine
    assert recording(tmp_path, sound, seconds=0.9) == replace(fine, cut=True)
    assert recording(tmp_path, np.clip(2 * sound, -1, 1)) == replace(fine, clipped=True)
    assert recording(tmp_path, np.clip(2 * sound, -0.5, 0.5)) == fine  # somebody's effect
    assert recording(tmp_path, np.full(1000, 0.25)) == quiet
    longer = np.concatenate([np.zeros(1000), sound])
    assert recording(tmp_path, longer) == replace(fine, cut=True, seconds=2.0)  # the mean is sound
    two = np.stack([np.zeros(1000), sound], axis=1)
    assert recording(tmp_path, two) == replace(quiet, other_channels=True)
    assert recording(tmp_path, two, channels="mean") == fine
    assert recording(tmp_path, two, num_channels=2) == fine


def test_an_hour_is_read_and_more_refused(tmp_path):
    """Nothing but a header, and no disk: what lies behind it is a hole in the file."""
    for frames in (3600 * 8000, 3600 * 8000 + 1):
        soundfile.write(tmp_path / "x.wav", np.zeros(1), 8000, subtype="PCM_U8")
        content = bytearray((tmp_path / "x.wav").read_bytes())[:44]
        content[40:44] = frames.to_bytes(4, "little")
        with (tmp_path / "x.wav").open("wb") as file:
            file.write(content)
            file.truncate(44 + frames)
        if frames == 3600 * 8000:
            assert len(audio.read(tmp_path / "x.wav", sample_rate=8000)) == frames
        else:
            with pytest.raises(UserError, match=r"x.wav is too long .* at most an hour is read"):
                audio.read(tmp_path / "x.wav", sample_rate=8000)
