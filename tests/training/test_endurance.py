"""The short form of ``make endurance``: runs that are killed several times end as the run that nobody touched."""

import json
import os
import re
import subprocess
import sys

import pytest
from command_lines import ROOT
from endurance.contents import contents, differences

KILLS = {1: 8, 2: 2}
ADAPTIVE = (
    "at|call RoundBudget.judge|10|0",
    "at|call ProgressiveDistillation.promote|1|0",
    "at|call RoundBudget.judge|8|0",
)
"""Before the rollback in an extended round, after it, and before one at the end of the next round."""


@pytest.fixture(scope="module")
def endurance(tmp_path_factory):
    """Both numbers of processes at once: the imports take longest."""
    folder = tmp_path_factory.mktemp("endurance")
    return run_endurance("--short", "--seed", "0", "--ranks", *map(str, KILLS), "--folder", str(folder))


def run_endurance(*words):
    return subprocess.run(
        [sys.executable, "-m", "endurance", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_runs_end_in_the_same_bytes(endurance):
    """In promotion, checkpoint, student, scores and `prepare`, and by the clock; one process and two."""
    told = endurance.stdout + endurance.stderr
    assert endurance.returncode == 0, told
    # One by the clock may come when the run is over.
    assert int(re.search(r"^(\d+) kills", endurance.stdout, re.MULTILINE)[1]) >= sum(KILLS.values()) - 2, told


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_round_is_extended_and_rolled_back_all_the_same(tmp_path):
    found = run_endurance("--only", "adaptive/1/" + ";".join(ADAPTIVE), "--folder", str(tmp_path / "endurance"))
    assert found.returncode == 0, found.stdout + found.stderr
    assert "3 kills in 1 runs" in found.stdout
    budgets = [
        json.loads(file.read_text())["budget"]
        for file in (tmp_path / "endurance").glob("untouched*/run/rounds/*/*.json")
    ]
    decisions = [decision.split()[0] for budget in budgets for decision in budget["decisions"]]
    assert decisions.count("extended") >= 2
    assert decisions.count("rolled") >= 2


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("step,loss\n0,1.5\n1,1.25\n")
    (run / "scores.csv").write_text("model,fd,seconds_per_clip\nteacher,1.5,0.1\n")
    return run


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda run: (run / "metrics.csv").write_text("step,loss\n0,1.5\n"), "metrics.csv: 2 lines differ; line 3"),
        (lambda run: (run / "metrics.csv").unlink(), "metrics.csv is missing"),
        (
            lambda run: (run / ".half.partial-01234567-1-89abcdef").mkdir(),
            ".half.partial-01234567-1-89abcdef/ is too many",
        ),
        (lambda run: (run / "scores.csv").write_text("model,fd,seconds_per_clip\nteacher,1.6,0.1\n"), "scores.csv: 1"),
    ],
    ids=["a row less", "a file less", "a folder left over", "another score"],
)
def test_what_differs_is_told(run, tmp_path, change, told):
    wanted = contents(tmp_path)
    assert not differences(contents(tmp_path), wanted)
    change(run)
    (found,) = differences(contents(tmp_path), wanted)
    assert told in found


def test_seconds_may_differ(run, tmp_path):
    wanted = contents(tmp_path)
    (run / "scores.csv").write_text("model,fd,seconds_per_clip\nteacher,1.5,0.2\n")
    assert not differences(contents(tmp_path), wanted)
