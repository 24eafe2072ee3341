"""Every kind of damage to a run is one sentence of `lightning report`; odd runs that are good are reported."""

from random import Random

import pytest
from reporting.runs import write_run
from run_faults import GOOD_RUNS, RUNS

from bsa_lightning.common.errors import UserError


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", RUNS)
def test_a_damaged_run_is_refused_by_the_name_of_the_file(tmp_path, name, seed):
    run = write_run(tmp_path / "run")
    case = RUNS[name](run, Random(seed))
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        case.read()
    assert "\n" not in str(error.value)
    assert "run" in str(error.value)
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", GOOD_RUNS)
def test_a_good_run_is_reported(tmp_path, name, seed):
    case = GOOD_RUNS[name](write_run(tmp_path / "run"), Random(seed))
    assert case.read() == case.expected
