import numpy as np
import pytest
import torch

from bsa_lightning.evaluation.embeddings import LogMelStatistics, round_to_pcm16


def vggish_patches(wave):
    """The published front end, frame by frame and band by band."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi / 400 * np.arange(400))
    frames = [wave[i : i + 400] * window for i in range(0, len(wave) - 399, 160)]
    spectrum = np.abs(np.fft.rfft(frames, 512))
    to_mel = lambda hertz: 1127.0 * np.log(1.0 + hertz / 700.0)  # noqa: E731
    bins, edges = to_mel(np.linspace(0, 8000, 257)), np.linspace(to_mel(125.0), to_mel(7500.0), 66)
    mel = np.zeros((len(frames), 64))
    for band in range(64):
        low, center, high = edges[band : band + 3]
        weight = np.maximum(0, np.minimum((bins - low) / (center - low), (high - bins) / (high - center)))
        weight[0] = 0
        mel[:, band] = spectrum @ weight
    log_mel = np.log(mel + 0.01)
    whole = len(log_mel) // 96 * 96
    return log_mel[:whole].reshape(-1, 96, 64)


def test_patches_are_vggishs():
    wave = 0.3 * torch.randn(2, 40_960, generator=torch.Generator().manual_seed(0))
    ours = LogMelStatistics().patches(wave)
    theirs = np.stack([vggish_patches(clip.double().numpy()) for clip in wave])
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("seconds", "num_rows"), [(0.5, 1), (0.975, 1), (1.9, 1), (10, 10), (10.24, 10)])
def test_rows_of_a_clip(seconds, num_rows):
    embedding = LogMelStatistics()
    assert embedding(torch.zeros(3, int(seconds * 16_000))).rows.shape == (3, num_rows, 128)


def test_rows_are_mean_and_deviation():
    wave = torch.randn(1, 16_000)
    embedding = LogMelStatistics()
    patch, row = embedding.patches(wave)[0, 0], embedding(wave).rows[0, 0]
    np.testing.assert_allclose(row.numpy(), np.concatenate([patch.numpy().mean(0), patch.numpy().std(0)]), atol=1e-5)


def test_pcm16_is_what_a_file_would_hold(tmp_path):
    import soundfile

    wave = torch.linspace(-1.2, 1.2, 1001)
    soundfile.write(tmp_path / "a.wav", wave.clamp(-1, 1).numpy(), 16_000, subtype="PCM_16")
    read, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    np.testing.assert_allclose(round_to_pcm16(wave).numpy(), read, rtol=0, atol=1.01 / 32768)
