import pytest
import torch

from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.frechet import frechet_distance_of_rows
from bsa_lightning.evaluation.infinite import at_infinity


def test_a_line_in_one_over_n_is_found():
    line = at_infinity(lambda at: 3.0 + 50.0 / len(at), num_clips=80)
    assert (line.distance, line.slope, line.r_squared) == pytest.approx((3.0, 50.0, 1.0), rel=1e-9)
    assert (line.sizes[0], line.sizes[-1], len(line.sizes)) == (20, 80, 15)


def test_clips_are_drawn_without_replacement_and_the_same_each_time():
    seen = []
    for _ in range(2):
        at_infinity(lambda at: seen.append(at) or float(len(at)), num_clips=40)
    assert all(len(at.unique()) == len(at) for at in seen)
    assert all(torch.equal(a, b) for a, b in zip(seen[:15], seen[15:], strict=True))
    assert torch.equal(seen[14], torch.arange(40))


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
    with pytest.raises(UserError, match="at infinity needs 30 clips, but there are 12"):
        at_infinity(lambda at: 0.0, num_clips=12)
