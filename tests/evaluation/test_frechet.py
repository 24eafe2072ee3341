import numpy as np
import pytest
import scipy.linalg
import torch
from frechet_rows import rank_of_two, rows
from tolerances import IDENTITY

from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.frechet import FrechetDistance, frechet_distance


def distance(reference, generated):
    metric = FrechetDistance(reference.shape[1])
    metric.update(reference, reference=True)
    metric.update(generated)
    return metric.compute()


@pytest.mark.parametrize("d", [1, 3, 40])
def test_closed_form_of_gaussians_with_common_axes(d):
    """|m1 - m2|^2 + sum (s1 - s2)^2."""
    mean1, mean2 = rows(2, d)
    std1, std2 = torch.rand(2, d, dtype=torch.float64) + 0.1
    rotation = torch.linalg.qr(rows(d, d, 1))[0]
    cov1, cov2 = (rotation * std**2 @ rotation.mT for std in (std1, std2))
    expected = (mean1 - mean2).square().sum() + (std1 - std2).square().sum()
    torch.testing.assert_close(frechet_distance(mean1=mean1, cov1=cov1, mean2=mean2, cov2=cov2), expected, **IDENTITY)


def test_agrees_with_scipys_square_root():
    x, y = rows(300, 12), rows(200, 12, 1) + 0.3
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    means = (x.mean(0) - y.mean(0)).square().sum()
    expected = float(means) + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert float(distance(x, y)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("n", [300, 8])
def test_a_set_against_itself_is_zero_even_with_fewer_rows_than_dimensions(n):
    x = rows(n, 20)
    assert float(distance(x, x)) == pytest.approx(0, abs=1e-6 * float(x.var(0).sum()))


def test_updates_add_up_and_reset_keeps_the_reference():
    x, y = rows(50, 4), rows(60, 4, 1)
    metric = FrechetDistance(4)
    for part in x.split(7):
        metric.update(part, reference=True)
    for _ in range(2):
        for part in y.split(11):
            metric.update(part.float().double())
        torch.testing.assert_close(metric.compute(), distance(x, y.float().double()), **IDENTITY)
        metric.reset()


def test_sums_stay_float64_on_a_half_precision_model():
    assert FrechetDistance(4).half().generated_sum.dtype == torch.float64


def test_two_ranks_are_one(tmp_path):
    torch.multiprocessing.spawn(rank_of_two, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        together = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(together, distance(rows(50, 4), rows(61, 4, 1)), **IDENTITY)


def test_hopeless_input_is_refused():
    with pytest.raises(UserError, match="two rows on each side"):
        distance(rows(50, 4), rows(1, 4))
    with pytest.raises(UserError, match="not finite"):
        distance(rows(50, 4), rows(5, 4) / 0)
