import numpy as np
import pytest
import torch

from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics


@pytest.mark.parametrize(("seconds", "num_rows"), [(0.5, 1), (0.975, 1), (1.9, 1), (10, 10), (10.24, 10)])
def test_rows_of_a_clip(seconds, num_rows):
    embedding = LogMelStatistics()
    assert embedding(torch.zeros(3, int(seconds * 16_000))).rows.shape == (3, num_rows, 128)


def test_rows_are_mean_and_deviation():
    wave = torch.randn(1, 16_000)
    embedding = LogMelStatistics()
    patch, row = embedding.patches(wave)[0, 0], embedding(wave).rows[0, 0]
    np.testing.assert_allclose(row.numpy(), np.concatenate([patch.numpy().mean(0), patch.numpy().std(0)]), atol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 15_599, 15_760, 16_000, 30_959, 30_960, 31_120, 160_000, 163_840])
def test_the_number_of_rows_is_known_beforehand(num_samples):
    embedding = LogMelStatistics()
    assert embedding(torch.zeros(1, num_samples)).rows.shape[1] == embedding.num_rows(num_samples)
