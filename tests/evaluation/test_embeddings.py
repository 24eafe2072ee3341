import numpy as np
import pytest
import torch

from bsa_lightning.evaluation.embeddings import LogMelStatistics, round_to_pcm16


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
