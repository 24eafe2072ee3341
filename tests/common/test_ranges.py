import math

import numpy as np
import pytest

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number, check_seed


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float64(0.25), np.int64(1)])
def test_what_lies_in_the_range_passes(value):
    check_number("share", value, at_least=0, at_most=1)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, -math.inf, True, "0.5", None])
def test_everything_else_is_refused_with_name_value_and_range(value):
    with pytest.raises(UserError) as caught:
        check_number("share", value, at_least=0, at_most=1, advice="half is usual")
    expected = f"share is {value!r}, but must be a finite number, at least 0 and at most 1; half is usual"
    assert str(caught.value) == expected


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_open_ends_are_outside(value):
    with pytest.raises(UserError, match="must be a finite number, above 0 and below 1"):
        check_number("decay", value, above=0, below=1)


def test_a_whole_number_is_no_fraction():
    with pytest.raises(UserError, match=r"steps is 2\.0, but must be a whole number"):
        check_number("steps", 2.0, whole=True)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.0, True])
def test_seeds_have_one_number_each(seed):
    check_seed("seed", 2**63 - 1)
    with pytest.raises(UserError, match=f"seed is {seed}, but"):
        check_seed("seed", seed)
