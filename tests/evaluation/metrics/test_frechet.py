import numpy as np
import pytest
import scipy.linalg
import torch
from frechet_rows import rows
from tolerances import IDENTITY

from bsa_lightning.evaluation.metrics import frechet
from bsa_lightning.evaluation.metrics.frechet import frechet_distance, frechet_distance_of_rows
from bsa_lightning.evaluation.metrics.kernel import NoValueError


def cov_of(x):
    return torch.from_numpy(np.cov(x.numpy().T)).reshape(x.shape[1], x.shape[1])


def with_moments(x, *, mean, cov):
    """Rows with exactly this mean and covariance."""
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(cov_of(x)), (x - x.mean(0)).mT, upper=False).mT
    return white @ torch.linalg.cholesky(cov).mT + mean


@pytest.mark.parametrize("d", [1, 3, 40])
def test_closed_form_of_gaussians_with_common_axes(d):
    """|m1 - m2|^2 + sum (s1 - s2)^2."""
    mean1, mean2 = rows(2, d)
    std1, std2 = torch.rand(2, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    rotation = torch.linalg.qr(rows(d, d, 1))[0]
    cov1, cov2 = (rotation * std**2 @ rotation.mT for std in (std1, std2))
    expected = (mean1 - mean2).square().sum() + (std1 - std2).square().sum()
    torch.testing.assert_close(frechet_distance(mean1=mean1, cov1=cov1, mean2=mean2, cov2=cov2), expected, **IDENTITY)
    x = with_moments(torch.randn(90, d).double(), mean=mean1, cov=cov1)
    y = with_moments(torch.randn(50, d).double(), mean=mean2, cov=cov2)
    torch.testing.assert_close(frechet_distance_of_rows(x, y), expected, **IDENTITY)


@pytest.mark.parametrize(("n", "d"), [(300, 12), (30, 200)])
def test_closed_form_of_a_scaled_and_shifted_copy(n, d):
    """With fewer rows than dimensions too, where roots of eigenvalues err by 1e-7."""
    x = rows(n, d)
    expected = (0.05 * x.mean(0) + 0.3).square().sum() + 0.05**2 * x.var(0).sum()
    torch.testing.assert_close(frechet_distance_of_rows(x, 1.05 * x + 0.3), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("smallest", [0.1, 1e-3, 1e-5, 1e-8, 0.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_small_directions_keep_their_digits(smallest, scale):
    """Whichever way is taken: a scaled copy moves by the sum over directions, of sizes that lie far apart."""
    for seed in range(8):
        sizes = torch.linspace(1, 0, 12, dtype=torch.float64) * (1 - smallest) + smallest
        x = scale * rows(300, 12, seed) * (sizes if seed % 2 else sizes.flip(0))
        expected = 0.5**2 * x.var(0).sum() + (0.5 * x.mean(0)).square().sum()
        torch.testing.assert_close(frechet_distance_of_rows(x, 1.5 * x), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("smallest", [1e-5, 1e-9, 0.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_directions_that_are_small_on_one_side_only_keep_their_digits(smallest, scale):
    """Common axes, which are none of the coordinates': a root of a rounded square would be off by 1e-8."""
    q = torch.linalg.qr(torch.cat([torch.ones(60, 1, dtype=torch.float64), rows(60, 8)], 1))[0][:, 1:]
    rotation = torch.linalg.qr(rows(8, 8, 1))[0]
    sizes = torch.tensor([[1.0] * 5 + [smallest] * 3, [1.0] * 2 + [smallest] * 3 + [1.0] * 3], dtype=torch.float64)
    x, y = (scale * 59**0.5 * q * size @ rotation for size in sizes)
    expected = scale**2 * (sizes[0] - sizes[1]).square().sum()
    torch.testing.assert_close(frechet_distance_of_rows(x, y), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [300, 5])
def test_squares_that_are_too_large_for_float64_are_not_needed(n):
    x, y = rows(n, 12), rows(n, 12, 1)
    expected = frechet_distance_of_rows(x, y)
    torch.testing.assert_close(frechet_distance_of_rows(1e80 * x, 1e80 * y) / 1e160, expected, rtol=1e-9, atol=0)


def test_agrees_with_scipys_square_root():
    x, y = rows(300, 12), rows(200, 12, 1) + 0.3
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    means = (x.mean(0) - y.mean(0)).square().sum()
    expected = float(means) + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert float(frechet_distance_of_rows(x, y)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(300, 200), (8, 300), (8, 9), (2, 2), (20, 20)])
def test_rows_and_their_moments_agree(n, m):
    x, y = rows(n, 20), rows(m, 20, 1) + 0.3
    moments = {"mean1": x.mean(0), "cov1": cov_of(x), "mean2": y.mean(0), "cov2": cov_of(y)}
    torch.testing.assert_close(frechet_distance_of_rows(x, y), frechet_distance(**moments), rtol=1e-6, atol=0)
    torch.testing.assert_close(frechet_distance_of_rows(x, y), frechet_distance_of_rows(y, x), **IDENTITY)


@pytest.mark.parametrize("n", [300, 8])
def test_a_set_against_itself_is_zero_even_with_fewer_rows_than_dimensions(n):
    x = rows(n, 20)
    assert float(frechet_distance_of_rows(x, x)) == pytest.approx(0, abs=1e-12 * float(x.var(0).sum()))
    assert all(frechet_distance_of_rows(x, x[torch.randperm(n)]) >= 0 for _ in range(20))


def test_one_row_is_refused():
    with pytest.raises(NoValueError, match="needs two rows on each side, but one has 1"):
        frechet_distance_of_rows(rows(50, 4), rows(1, 4))


def test_is_computed_in_float64_whatever_comes_in():
    x, y = rows(50, 4).float(), rows(40, 4, 1).float()
    expected = frechet_distance_of_rows(x.double(), y.double())
    for pair in ((x, y), (x.double(), y), (x, y.double())):
        torch.testing.assert_close(frechet_distance_of_rows(*pair), expected, **IDENTITY)


@pytest.mark.parametrize(("sizes", "threads"), [((50, 50), 1), ((51, 50), 3), ((50, 51), 3), ((20, 30), 1)])
def test_one_thread_is_taken_up_to_a_size_of_both_sides(sizes, threads, monkeypatch):
    monkeypatch.setattr(frechet, "SMALL", 50 * 4)
    seen, distance = [], frechet._distance
    monkeypatch.setattr(frechet, "_distance", lambda *args: seen.append(torch.get_num_threads()) or distance(*args))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        frechet_distance_of_rows(rows(sizes[0], 4), rows(sizes[1], 4, 1))
    finally:
        torch.set_num_threads(before)
    assert seen == [threads]


def test_the_callers_threads_are_left_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        frechet_distance_of_rows(rows(50, 4), rows(50, 4, 1))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
