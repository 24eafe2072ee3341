"""The study's published tables are those of its published scores."""

import csv
import math
from pathlib import Path

import pytest

from bsa_lightning.reporting import table, training_seed_differences
from bsa_lightning.reporting.results import read_results
from experiments.study.rebuild import rebuild

RESULTS = Path(__file__).resolve().parent.parent / "experiments" / "weightings" / "results"
METRICS = ("fd_logmel", "trajectory_error", "seconds_per_clip")


@pytest.mark.parametrize("part", ["budget", "caps", "esc10", "flow", "guidance", "ladder"])
def test_tables_are_those_of_the_scores(part, tmp_path):
    metrics = () if part == "flow" else METRICS  # the flow's were all measured by today's evaluator
    results = read_results(rebuild(RESULTS / part / "scores.csv", tmp_path, metrics))
    assert table.comma_separated(results) == (RESULTS / part / "table.csv").read_text()
    found = training_seed_differences.comma_separated(training_seed_differences.differences(results))
    assert found == (RESULTS / part / "differences.csv").read_text()


def test_every_run_of_the_scores_counts(tmp_path):
    results = read_results(rebuild(RESULTS / "ladder" / "scores.csv", tmp_path, METRICS))
    with (RESULTS / "ladder" / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["setting"] == "jump" and row["weighting"]]
    (jump,) = (result for result in results if "jump" in result.name)
    values = [float(row["fd_logmel"]) for row in rows]
    assert (len(values), jump.training_seeds, jump.seeds) == (15, (0, 1, 2), (0, 1, 2, 3, 4))
    assert jump.metrics["fd_logmel"][0] == pytest.approx(math.fsum(values) / 15)
