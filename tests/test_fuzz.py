"""The short form of `make fuzz`."""

import pytest
from fuzz import fuzz


@pytest.mark.timeout(300)
def test_nothing_wrong_is_taken_and_nothing_good_is_refused():
    found = fuzz(cases=48, seed=3)
    assert found.problems == []
    assert len({kind for kind, _ in found.counts}) == 8
    assert sum(found.counts.values()) == 48
