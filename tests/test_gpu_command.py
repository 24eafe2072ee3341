"""``make gpu`` where there is no GPU: every part runs in its small form, and says what it could not do."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from command_lines import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="this machine has a GPU, where `make gpu` takes its eight minutes"
)
def test_every_part_runs_and_says_what_it_could_not_do(tmp_path):
    out = tmp_path / "gpu"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # From a folder of its own: the study writes its data there.
    for name in ("experiments", "tests", "configs", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.gpu", "--out", str(out)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    logs = "".join(path.read_text()[-2000:] for path in sorted(out.glob("*.log")))
    assert ended.returncode == 0, ended.stdout + ended.stderr + logs
    tests = lines(out / "tests.jsonl")
    skipped = {test["test"].rpartition("::")[2] for test in tests if test["outcome"] == "skipped"}
    assert {"test_networks_sharded_over_one_device", "test_a_compiled_ladder_is_the_same"} <= skipped
    assert all("needs a CUDA device" in test["why"] for test in tests if test["outcome"] == "skipped")
    assert sum(test["outcome"] == "passed" for test in tests) >= 50
    found = {result["what"] for result in lines(out / "full_size.jsonl")}
    assert found == {"device", "peak", "writing", "preparing", "training", "sampling"}
    trained = {
        (result["model"], result["mode"]) for result in lines(out / "full_size.jsonl") if result["what"] == "training"
    }
    assert trained == {("Tango", "outside"), ("Tango", "baked"), ("Tango", "embedded"), ("TangoFlux", "baked")}
    with (out / "study" / "scores.csv").open() as file:
        students = [row for row in csv.DictReader(file) if row["model"] == "student"]
    assert {row["num_steps"] for row in students} == {"1"}
    page = (out / "gpu.md").read_text()
    assert "no CUDA device" in ended.stdout
    assert page in ended.stdout
    assert all(row["trajectory_error"][:4] in page for row in students)
