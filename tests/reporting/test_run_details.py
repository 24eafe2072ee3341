import json
import shutil

import pytest

from bsa_lightning.common.errors import UserError
from bsa_lightning.reporting.run_details import plain, read_details

CONFIG = """
model:
  class_path: a.b.Module
  init_args:
    plan: {start_steps: 8, end_steps: 1}
    weighting: {class_path: x.y.BSA, init_args: {gamma: 5.0}}
data:
  init_args:
    batch_size: 16
"""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"class_path": "a.b.Adam", "init_args": {"lr": 0.1, "betas": [0.9, 0.99]}}, "Adam(lr 0.1, betas [0.9, 0.99])"),
        ({"class_path": "Uniform"}, "Uniform"),
        ({"class_path": "a.Uniform", "init_args": {}}, "Uniform"),
        (None, "none"),
        (True, "yes"),
        (3, "3"),
        ([], "[]"),
    ],
)
def test_plain(value, text):
    assert plain(value) == text


def test_what_was_decided_in_each_round(tmp_path):
    for number, steps in ((2, 2), (10, 1), (1, 4)):
        folder = tmp_path / "rounds" / f"{number}-{steps}steps"
        folder.mkdir(parents=True)
        budget = {} if number == 2 else {"budget": {"kept": 3, "decisions": [f"extended {number}", "ended"]}}
        (folder / "provenance.json").write_text(json.dumps({"round": number, "num_steps": steps, **budget}))
    for name in ("best", "backup-1-4steps", ".3-4steps.partial-7"):  # of the user, and of a process that was killed
        shutil.copytree(tmp_path / "rounds" / "1-4steps", tmp_path / "rounds" / name)
    assert read_details(tmp_path).groups["Rounds"] == [
        ("Round 1, 4 steps", "extended 1"), ("Round 1, 4 steps", "ended"),
        ("Round 10, 1 steps", "extended 10"), ("Round 10, 1 steps", "ended"),
    ]  # fmt: skip


def test_details(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    environment = {
        "git_revision": "0123456789abcdef",
        "git_changes": ["M a.py"],
        "python": "3.11",
        "platform": "Linux",
        "packages": {"torch": "2.11.0", "zipp": "1"},
    }
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    (tmp_path / "scores.json").write_text(json.dumps({"clips": "f" * 64, "seeds": [0, 1]}))
    details = read_details(tmp_path)
    assert details.config == CONFIG
    assert details.groups == {
        "Model": [("Plan", "start_steps 8, end_steps 1"), ("Weighting", "BSA(gamma 5.0)")],
        "Data": [("Batch size", "16")],
        "Software": [
            ("Git revision", "0123456789ab, with 1 changed file"),
            ("Versions", "Python 3.11, torch 2.11.0"),
            ("Platform", "Linux"),
        ],
        "Scored with": [("Clips", "f" * 16), ("Seeds", "[0, 1]")],
    }


def test_what_is_missing_is_left_out(tmp_path):
    assert read_details(tmp_path).groups == {}
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_details(tmp_path)
