"""The study's published tables are those of its published scores."""

import csv
import math
from pathlib import Path

import pytest

from bsa_lightning.reporting import table, training_seed_differences
from bsa_lightning.reporting.results import read_results
from experiments.study.rebuild import rebuild

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
HISTORY = EXPERIMENTS / "weightings" / "history"
METRICS = ("fd_logmel", "trajectory_error", "seconds_per_clip")
"""Those of an evaluator before, which today's measures in the same way."""


@pytest.mark.parametrize(
    ("part", "metrics"),
    [
        *((f"weightings/history/{part}", METRICS) for part in ("budget", "caps", "esc10", "guidance", "ladder")),
        ("weightings/history/flow", ()),
        ("weightings/results/weightings", ()),
        ("weightings/results/convergence", ()),
        ("weightings/results/longer", ()),
        ("methods/results", ()),
    ],
)
def test_tables_are_those_of_the_scores(part, metrics, tmp_path):
    folder = EXPERIMENTS / part
    results = read_results(rebuild(folder / "scores.csv", tmp_path, metrics))
    assert table.comma_separated(results) == (folder / "table.csv").read_text()
    found = training_seed_differences.comma_separated(training_seed_differences.differences(results))
    assert found == (folder / "differences.csv").read_text()


def test_every_run_of_the_scores_counts(tmp_path):
    results = read_results(rebuild(HISTORY / "ladder" / "scores.csv", tmp_path, METRICS))
    with (HISTORY / "ladder" / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["setting"] == "jump" and row["weighting"]]
    (jump,) = (result for result in results if "jump" in result.name)
    values = [float(row["fd_logmel"]) for row in rows]
    assert (len(values), jump.training_seeds, jump.seeds) == (15, (0, 1, 2), (0, 1, 2, 3, 4))
    assert jump.metrics["fd_logmel"][0] == pytest.approx(math.fsum(values) / 15)
