import math
from dataclasses import replace

import pytest

from bsa_lightning.evaluation.scores import Score, ScoreFile, interval


def score(seed=0, **metrics):
    return Score("student", "bsa", 1, 8, "baked", 2.0, 8, seed, 64, metrics)


def test_rows_come_back_and_a_repeat_replaces_its_own(tmp_path):
    file = ScoreFile(tmp_path / "scores.csv")
    file.append(score(0, fd_logmel=1.5))
    file.append(score(1, fd_logmel=1.25, trajectory_error=0.5))
    file.append(score(0, fd_logmel=2.0))
    assert [(row["seed"], row["fd_logmel"], row["trajectory_error"]) for row in file.rows()] == [
        ("1", "1.25", "0.5"),
        ("0", "2", ""),
    ]
    assert file.keys() == {score(0).key, score(1).key}


def test_columns_are_the_contract(tmp_path):
    file = ScoreFile(tmp_path / "scores.csv")
    file.append(score(fd_logmel=1.0, trajectory_error=0.1))
    assert file.path.read_text().splitlines()[0] == (
        "model,weighting,round,num_steps,guidance,guidance_scale,nfe,seed,num_clips,sampler,fd_logmel,trajectory_error"
    )


def test_scores_from_before_samplers_had_a_column_are_of_ddim(tmp_path):
    file = ScoreFile(tmp_path / "scores.csv")
    file.path.write_text(
        "model,weighting,round,num_steps,guidance,guidance_scale,nfe,seed,num_clips,fd_logmel\n"
        "student,bsa,1,8,baked,2.0,8,0,64,1.5\n"
    )
    assert file.keys() == {score(0).key}
    file.append(replace(score(0), sampler="dpm-solver++"))
    assert [(row["sampler"], row["fd_logmel"]) for row in file.rows()] == [("ddim", "1.5"), ("dpm-solver++", "")]


def test_interval_is_students():
    mean, half_width = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3
    assert half_width == pytest.approx(2.7764451 * math.sqrt(2.5 / 5), rel=1e-6)


def test_one_value_has_no_interval():
    assert math.isnan(interval([1.0])[1])
