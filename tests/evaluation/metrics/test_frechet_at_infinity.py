import numpy as np
import pytest
import torch

from bsa_lightning.evaluation.metrics.frechet import frechet_distance, frechet_distance_of_rows
from bsa_lightning.evaluation.metrics.frechet_at_infinity import at_infinity, refuse_short
from bsa_lightning.evaluation.metrics.kernel import NoValueError


def test_a_line_in_one_over_n_is_found():
    line = at_infinity(lambda at: 3.0 + 50.0 / len(at), num_clips=80)
    assert (line.distance, line.slope, line.r_squared) == pytest.approx((3.0, 50.0, 1.0), rel=1e-9)
    assert (line.sizes[0], line.sizes[-1], len(line.sizes)) == (20, 80, 15)
    assert line.distances == tuple(3.0 + 50.0 / size for size in line.sizes)


def test_clips_are_drawn_without_replacement_and_the_same_each_time():
    seen = []
    for _ in range(2):
        at_infinity(lambda at: seen.append(at) or float(len(at)), num_clips=40)
    assert all(len(at.unique()) == len(at) for at in seen)
    assert all(torch.equal(a, b) for a, b in zip(seen[:15], seen[15:], strict=True))
    assert torch.equal(seen[14], torch.arange(40))
    for seed in (0, 1):
        at_infinity(lambda at: seen.append(at) or float(len(at)), num_clips=40, seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(seen[:15], seen[30:45], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(seen[:15], seen[45:], strict=True))


def test_r_squared_is_the_square_of_the_correlation():
    """Of distances that lie around a line, in any unit; of equal distances the line explains all there is."""
    for unit in (1.0, 1e-4):
        line = at_infinity(lambda at, unit=unit: unit * (3.0 + 5.0 / len(at) + 0.1 * (len(at) % 3)), num_clips=80)
        expected = np.corrcoef(1 / np.array(line.sizes), np.array(line.distances))[0, 1] ** 2
        assert 0.05 < line.r_squared < 0.95
        assert line.r_squared == pytest.approx(expected, rel=1e-9)
        assert type(line.r_squared) is float
    same = at_infinity(lambda at: 2.0, num_clips=80)
    assert (same.r_squared, type(same.r_squared)) == (1.0, float)


def test_the_smallest_subset_has_two_clips():
    assert at_infinity(lambda at: float(len(at)), num_clips=8, num_sizes=3).sizes == (2, 5, 8)
    with pytest.raises(NoValueError, match="at infinity needs 4 clips, but there are 4"):
        at_infinity(lambda at: 0.0, num_clips=4, num_sizes=2)


def test_bias_of_few_rows_goes_away():
    """Two samples of one Gaussian: the distance is zero at infinity, and nowhere before."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40_000, 16, generator=generator).double()
    y = torch.randn(2000, 16, generator=generator).double()
    line = at_infinity(lambda at: float(frechet_distance_of_rows(x, y[at])), num_clips=2000)
    assert line.distances[0] > 4 * abs(line.distance)
    assert line.distances[-1] > 2 * abs(line.distance)
    assert line.r_squared > 0.9


def test_too_few_clips_are_refused():
    with pytest.raises(NoValueError, match="at infinity needs 30 clips, but there are 12"):
        at_infinity(lambda at: 0.0, num_clips=12)


@pytest.mark.parametrize(("num_clips", "num_rows"), [(255, 2550), (511, 511), (110, 110)])
def test_fewer_clips_or_rows_than_a_line_needs_give_no_value(num_clips, num_rows):
    message = f"{num_clips} clips with {num_rows} rows of 64 .* at least 256 clips with 512 rows"
    with pytest.raises(NoValueError, match=message):
        refuse_short(num_clips=num_clips, num_rows=num_rows, num_features=64)
    refuse_short(num_clips=256, num_rows=512, num_features=64)


def test_with_as_many_as_are_asked_for_little_of_the_bias_is_left():
    """Against the exact limit, 0: rows of a known Gaussian. With a quarter of them the line overshoots."""
    reference = {"mean1": torch.zeros(16).double(), "cov1": torch.eye(16).double()}
    shares = []
    for num_clips in (128, 32):
        limits, wholes = [], []
        for seed in range(40):
            y = torch.randn(num_clips, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

            def distance(at, y=y):
                return float(frechet_distance(**reference, mean2=y[at].mean(0), cov2=y[at].T.cov()))

            line = at_infinity(distance, num_clips=num_clips, seed=seed)
            limits.append(line.distance)
            wholes.append(line.distances[-1])
        shares.append(sum(limits) / sum(wholes))
    assert abs(shares[0]) < 0.15
    assert shares[1] < -0.3
