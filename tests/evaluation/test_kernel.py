import numpy as np
import pytest
import torch
from frechet_rows import rows
from tolerances import IDENTITY

from bsa_lightning.errors import UserError
from bsa_lightning.evaluation import kernel
from bsa_lightning.evaluation.kernel import KernelDistance, median_distance


def by_pairs(x, y, bandwidth):
    """The definition, pair by pair."""

    def mean(a, b, *, distinct):
        values = [
            np.exp(-np.sum((p - q) ** 2) / (2 * bandwidth**2))
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (distinct and i == j)
        ]
        return np.mean(values)

    return 100 * (mean(x, x, distinct=True) + mean(y, y, distinct=True) - 2 * mean(x, y, distinct=False))


@pytest.mark.parametrize("chunk", [7, 2048])
def test_is_its_definition_with_the_references_bandwidth(chunk, monkeypatch):
    monkeypatch.setattr(kernel, "_CHUNK", chunk)
    x, y = rows(20, 3), 3 * rows(15, 3, 1) + 0.5
    distances = [float((x[i] - x[j]).norm()) for i in range(20) for j in range(i)]
    assert median_distance(x) == pytest.approx(np.quantile(distances, 0.5, method="lower"), rel=1e-12)
    expected = by_pairs(x.numpy(), y.numpy(), median_distance(x))
    torch.testing.assert_close(float(KernelDistance(x)(y)), expected, **IDENTITY)


def test_a_far_mean_costs_no_digits():
    x, y = rows(40, 3), rows(30, 3, 1)
    torch.testing.assert_close(KernelDistance(x + 1e4)(y + 1e4), KernelDistance(x)(y), rtol=1e-7, atol=1e-9)


def test_has_no_bias_in_the_number_of_rows():
    """Samples of one distribution are at zero on average, however few rows they have."""
    generator = torch.Generator().manual_seed(0)
    found = [KernelDistance(x, bandwidth=4.0)(y) for x, y in torch.randn(200, 2, 20, 8, generator=generator)]
    values = torch.stack(found)
    assert abs(float(values.mean())) < 3 * float(values.std()) / 200**0.5
    assert values.min() < 0


def test_of_very_many_rows_the_median_is_of_some(monkeypatch):
    x = rows(100, 3)
    monkeypatch.setattr(kernel, "_MOST", 50)
    assert median_distance(x) == median_distance(x[::2])


def test_hopeless_input_is_refused():
    with pytest.raises(UserError, match="needs two rows on each side, but one has 1"):
        KernelDistance(rows(5, 3))(rows(1, 3))
    with pytest.raises(UserError, match="needs two rows on each side, but one has 1"):
        KernelDistance(rows(1, 3))
    with pytest.raises(UserError, match="half of the pairs of reference rows are alike"):
        KernelDistance(torch.ones(5, 3))
