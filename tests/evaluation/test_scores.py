import json
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.scores import COLUMNS, Score, ScoreFile, crossed_interval, interval
from bsa_lightning.evaluation.system_name import SystemName


def score(seed=0, **metrics):
    return Score("student", "bsa", 1, 8, "baked", 2.0, 8, seed, 64, metrics, method="progressive")


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
        "model,method,weighting,round,num_steps,guidance,guidance_scale,nfe,seed,num_clips,sampler,fd_logmel,"
        "trajectory_error"
    )


def test_scores_from_before_samplers_and_methods_had_a_column_are_of_ddim_and_progressive(tmp_path):
    file = ScoreFile(tmp_path / "scores.csv")
    file.path.write_text(
        "model,weighting,round,num_steps,guidance,guidance_scale,nfe,seed,num_clips,fd_logmel\n"
        "student,bsa,1,8,baked,2.0,8,0,64,1.5\n"
    )
    assert file.keys() == {score(0).key}
    file.append(replace(score(0), sampler="dpm-solver++"))
    assert [(row["sampler"], row["fd_logmel"]) for row in file.rows()] == [("ddim", "1.5"), ("dpm-solver++", "")]
    file.append(replace(score(0), method="segmented-consistency"))
    assert [row["method"] for row in file.rows()] == ["progressive", "progressive", "segmented-consistency"]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("model", ["student"], [""]),
        *((name, ["", "any text"], []) for name in ("weighting", "guidance", "sampler", "method")),
        *((name, ["0", "9" * 18], ["", "-1", "1.0", "9" * 19, "\u0661"]) for name in ("round", "nfe", "seed")),
        ("guidance_scale", ["0", "0.5", "1e3"], ["", "-0.5", "nan", "inf", "3,0"]),
        ("fd_logmel", ["", "-1.5", "9.9e99", "-9.9e99"], ["nan", "1e100", "-1e100", "1_0", "x"]),
    ],
)
def test_a_cell_is_what_would_have_been_written(tmp_path, name, good, bad):
    columns = {column: str(getattr(score(), column)) for column in COLUMNS} | {"fd_logmel": "1"}
    path = tmp_path / "scores.csv"
    for value in [*good, *bad]:
        row = columns | {name: value}
        path.write_text(f"{','.join(row)}\n{','.join(map(json.dumps, row.values()))}\n")
        if value in good:
            assert ScoreFile(path).rows()[0][name] == value
        else:
            with pytest.raises(UserError, match=f"line 2 has .* as its {name};"):
                ScoreFile(path).rows()


def test_a_file_that_was_cut_is_refused(tmp_path):
    file = ScoreFile(tmp_path / "scores.csv")
    file.append(score(fd_logmel=1.25))
    file.path.write_text(file.path.read_text().rstrip("\r\n"))
    with pytest.raises(UserError, match=r"scores\.csv"):
        file.rows()


def test_a_score_is_of_its_system_and_cannot_be_changed():
    assert score().system == SystemName.of(vars(score()))
    with pytest.raises(FrozenInstanceError):
        score().seed = 5


def test_interval_is_students():
    mean, half_width = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3
    assert half_width == pytest.approx(2.7764451 * math.sqrt(2.5 / 5), rel=1e-6)
    assert type(half_width) is float


def test_two_values_have_a_wide_interval():
    assert interval([1.0, 2.0]) == pytest.approx((1.5, 12.7062047 / 2), rel=1e-6)


def test_one_value_has_no_interval():
    assert math.isnan(interval([1.0])[1])


def test_a_crossed_interval_of_one_row_or_column_is_students():
    values = [1.0, 2.0, 4.0, 8.0]
    assert crossed_interval([values]) == interval(values)
    assert crossed_interval([[value] for value in values]) == interval(values)
    assert math.isnan(crossed_interval([[1.0]])[1])


def test_a_crossed_interval_has_both_sources_of_variance_and_never_less_than_the_larger():
    """Against mean squares computed number by number; the quantiles are those of Student's t in tables."""
    for seed in range(20):
        y = (
            np.random.default_rng(seed).normal(size=(3, 5))
            + 0.3 * seed * np.arange(5)
            + np.arange(3)[:, None] * (seed % 3)
        )
        mean = sum(y.flat) / 15
        a, b = [sum(row) / 5 - mean for row in y], [sum(column) / 3 - mean for column in y.T]
        rest = [y[t, s] - mean - a[t] - b[s] for t in range(3) for s in range(5)]
        ma, mb = 5 * sum(x * x for x in a) / 2, 3 * sum(x * x for x in b) / 4
        q_a, q_b = 4.3026527**2, 2.7764451**2
        square = max(q_a * ma, q_b * mb, q_a * ma + q_b * mb - q_b * sum(x * x for x in rest) / 8) / 15
        for values, expected in ((y, square), (y.T, square), (y + 100, square), (10 * y, 100 * square)):
            found = crossed_interval(values.tolist())
            assert [type(value) for value in found] == [float, float]
            assert found == pytest.approx((values.mean(), math.sqrt(expected)), rel=1e-7)
