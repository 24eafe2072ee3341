import csv

import pytest

from bsa_lightning.commands.metrics_file import MetricsFile


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_on_disk_at_once_and_columns_grow(tmp_path):
    logger = MetricsFile(tmp_path, resumed=False)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.log_metrics({"error": 2.0}, step=1)
    assert rows(tmp_path) == [
        {"step": "0", "loss": "1.0", "error": ""},
        {"step": "1", "loss": "", "error": "2.0"},
    ]


@pytest.mark.parametrize(("resumed", "steps"), [(True, ["0", "10"]), (False, ["0", "10", "20", "10"])])
def test_a_resumed_fit_replaces_what_it_does_again(tmp_path, resumed, steps):
    first = MetricsFile(tmp_path, resumed=False)
    for step in (0, 10, 20):
        first.log_metrics({"loss": 1.0}, step=step)
    MetricsFile(tmp_path, resumed=resumed).log_metrics({"loss": 2.0}, step=10)
    assert [row["step"] for row in rows(tmp_path)] == steps
    assert rows(tmp_path)[-1]["loss"] == "2.0"
