import io

import pytest

from bsa_lightning.common import progress as module
from bsa_lightning.common.progress import Tenths, progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_is_due_at_each_tenth(clock):
    tenths = Tenths()
    assert [done for done in range(1, 41) if tenths.is_due(done, 40)] == list(range(4, 41, 4))
    tenths.restart()
    assert tenths.is_due(4, 40)


def test_slow_work_has_a_line_each_half_minute(clock):
    tenths, said = Tenths(), []
    for second in range(200):
        clock[0] = float(second)
        if tenths.is_due(second, 100_000):
            said.append(second)
    assert said == [30, 60, 90, 120, 150, 180]
    clock[0] = 500.0
    assert not tenths.is_due(180, 100_000)  # nothing was done


def test_without_a_terminal_lines_are_written(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    with progress(total=200, desc="prepare x", unit="clip", file=log, mininterval=0) as bar:
        for _ in range(200):
            bar.update(1)
    lines = log.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"prepare x: {n} of 200 clips" for n in range(20, 201, 20)]
    assert "\r" not in log.getvalue()


def test_iterables_are_counted_and_a_disabled_bar_is_silent(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    assert list(progress(range(3), desc="check", unit="file", file=log, disable=True)) == [0, 1, 2]
    assert log.getvalue() == ""
    assert list(progress(range(3), desc="check", unit="file", file=log)) == [0, 1, 2]
    assert log.getvalue().splitlines()[-1].startswith("check: 3 of 3 files")
