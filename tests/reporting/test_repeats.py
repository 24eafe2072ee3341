import csv
import math

import pytest
import yaml

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.scores import Score, ScoreFile
from bsa_lightning.reporting.repeats import label, one_of_each, read_training
from bsa_lightning.reporting.report import report
from bsa_lightning.reporting.results import read_results
from bsa_lightning.reporting.table import markdown, note
from bsa_lightning.reporting.training_seed_differences import cells, comma_separated, differences

SAMPLING_SEEDS = range(3)


def write_run(folder, *, weighting, seed, fd, teacher_fd=20.0, method="progressive", **settings):
    """A run whose student has ``fd`` and whose teacher has ``teacher_fd`` on average, each sampling seed alike off."""
    config = {
        "seed_everything": seed,
        "run": str(folder),
        "model": {"class_path": "X", "init_args": {"weighting": weighting, "seed": seed, **settings}},
        "data": {"class_path": "Y", "init_args": {"seed": seed, "batch_size": 8}},
    }
    file = ScoreFile(folder / "scores.csv")
    for sampling in SAMPLING_SEEDS:
        off = 10 * (sampling - 1)
        metrics = {"fd_logmel": teacher_fd + off, "trajectory_error": 0.0}
        file.append(Score("teacher", "", 0, 8, "outside", 3.0, 16, sampling, 64, metrics))
        metrics = {"fd_logmel": fd + off, "trajectory_error": fd / 10}
        file.append(Score("student", weighting, 1, 4, "baked", 3.0, 4, sampling, 64, metrics, method=method))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def runs(tmp_path):
    """BSA is better than min-SNR by 0.9, 1.0 and 1.1, whatever the training seed itself does (5 apart)."""
    made = []
    for seed, gain in enumerate((0.9, 1.0, 1.1)):
        level = 20 + 5 * seed
        made.append(write_run(tmp_path / "min-snr" / str(seed), weighting="min-snr", seed=seed, fd=level))
        made.append(write_run(tmp_path / "bsa" / str(seed), weighting="bsa", seed=seed, fd=level - gain))
    return made


def test_runs_that_differ_in_their_seed_alone_repeat_one_another(runs, tmp_path):
    trainings = [read_training(run) for run in runs]
    assert [training.seed for training in trainings] == [0, 0, 1, 1, 2, 2]
    assert len({training.setting for training in trainings}) == 2
    other = write_run(tmp_path / "other", weighting="bsa", seed=0, fd=1.0, ema_decay=0.9)
    assert read_training(other).setting not in {training.setting for training in trainings}
    assert one_of_each([*runs, other]) == [*runs[:2], other]


def test_a_run_without_a_configuration_repeats_none(runs):
    (runs[0] / "config.yaml").unlink()
    assert read_training(runs[0]) != read_training(runs[2])


def test_the_interval_is_over_training_and_sampling_seeds(runs):
    """Levels of trainings are 5 apart, those of sampling seeds 10, and nothing else varies."""
    teacher, bsa, min_snr = read_results(runs)
    assert (teacher.training_seeds, bsa.training_seeds) == ((), (0, 1, 2))
    assert [result.name for result in (bsa, min_snr)] == ["Student (bsa)", "Student (min-snr)"]
    mean, half_width = min_snr.metrics["fd_logmel"]
    assert mean == pytest.approx(25)
    assert half_width == pytest.approx(4.302653 * ((5**2 + 10**2) / 3) ** 0.5, rel=1e-5)
    assert teacher.metrics["fd_logmel"][1] == pytest.approx(4.302653 * 10 / 3**0.5, rel=1e-5)


def test_runs_without_a_common_sampling_seed_have_a_mean_and_no_interval(tmp_path):
    runs = [write_run(tmp_path / str(seed), weighting="bsa", seed=seed, fd=1.0 + seed) for seed in range(2)]
    for run, kept in zip(runs, "01", strict=True):
        lines = (run / "scores.csv").read_text().splitlines(keepends=True)
        rows = ScoreFile(run / "scores.csv").rows()
        those = [line for line, row in zip(lines[1:], rows, strict=True) if row["seed"] == kept or not row["weighting"]]
        (run / "scores.csv").write_text("".join([lines[0], *those]))
    mean, half_width = read_results(runs)[1].metrics["fd_logmel"]
    assert mean == pytest.approx(((1 - 10) + 2) / 2)
    assert math.isnan(half_width)


def test_a_student_of_one_training_among_others_of_several_is_marked(runs, tmp_path):
    other = write_run(tmp_path / "snr" / "0", weighting="snr", seed=0, fd=9.0)
    found = markdown(read_results([*runs, other]))
    assert [line.split("|")[1].strip() for line in found.splitlines()[2:6]] == [
        "Teacher (DDIM)", "Student (bsa)", "Student (min-snr)", "Student (snr) ‡",
    ]  # fmt: skip
    assert "‡ trained once: ± is over sampling seeds alone" in found
    assert "‡" not in markdown(read_results(runs)) + markdown(read_results([other]))


def test_repeats_of_another_setting_are_another_system(runs, tmp_path):
    others = [
        write_run(tmp_path / "bsa-ema" / str(seed), weighting="bsa", seed=seed, fd=9.0, ema_decay=0.9)
        for seed in (0, 1)
    ]
    names = [(result.name, len(result.training_seeds)) for result in read_results([*runs, *others])[1:]]
    assert names == [("Student (bsa), bsa", 3), ("Student (bsa), bsa-ema", 2), ("Student (min-snr)", 3)]


def test_what_seeds_share_cancels_in_their_difference(runs):
    """Levels of training seeds are 5 apart and of sampling seeds 10, but gains are 0.9, 1.0 and 1.1."""
    found = {(d.first.weighting, d.second.weighting, d.metric): d for d in differences(read_results(runs))}
    gain = found["bsa", "min-snr", "fd_logmel"]
    assert gain.mean == pytest.approx(-1.0)
    assert gain.interval == pytest.approx((-1 - 4.302653 * 0.1 / 3**0.5, -1 + 4.302653 * 0.1 / 3**0.5), rel=1e-5)
    assert gain.excludes_zero
    assert found["bsa", "", "fd_logmel"].mean == pytest.approx(4.0)  # against the teacher
    assert not found["bsa", "", "fd_logmel"].excludes_zero
    assert ("bsa", "", "trajectory_error") not in found
    rows = {tuple(row[:4]): row[4] for row in cells(list(found.values()))}
    assert rows["Student (min-snr)", "Student (bsa)", "4", "FD log-mel ↓"] == "+1 *"
    assert rows["Student (bsa)", "Teacher (DDIM)", "4 to 8", "FD log-mel ↓"] == "+4"


def test_runs_with_fewer_samplings_are_paired_on_those_that_all_have(runs):
    rows = ScoreFile(runs[3] / "scores.csv").rows()
    (runs[3] / "scores.csv").unlink()
    for row in rows:
        if row["seed"] == "0":
            metrics = {"fd_logmel": float(row["fd_logmel"]), "trajectory_error": float(row["trajectory_error"])}
            numbers = {name: int(row[name]) for name in ("round", "num_steps", "nfe", "seed", "num_clips")}
            words = {name: row[name] for name in ("model", "method", "weighting", "guidance")}
            score = Score(**words, **numbers, guidance_scale=float(row["guidance_scale"]), metrics=metrics)
            ScoreFile(runs[3] / "scores.csv").append(score)
    for order in (runs, runs[::-1]):
        teacher, bsa, _ = read_results(order)
        assert (teacher.seeds, bsa.seeds) == ((0, 1, 2), (0,))
        assert "fewer seeds than the others (1 of 3), where ± of one sampling seed is over" in note(read_results(order))
        found = {(d.first.weighting, d.second.weighting, d.metric): d for d in differences(read_results(order))}
        assert found["bsa", "min-snr", "fd_logmel"].mean == pytest.approx(-1.0)
        assert found["bsa", "min-snr", "fd_logmel"].num_training_seeds == 3
        assert found["bsa", "min-snr", "fd_logmel"].num_sampling_seeds == 1


def test_repeats_with_like_names_are_told_apart_by_their_folders(runs, tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "more" / "bsa" / str(seed), weighting="bsa", seed=seed, fd=9.0, ema_decay=0.9)
    names = {result.name for result in read_results([*runs, *sorted((tmp_path / "more" / "bsa").iterdir())])}
    assert len(names) == 4


def test_one_training_seed_has_no_difference_over_them(runs):
    assert differences(read_results(runs[:2])) == []


def test_a_difference_from_the_teacher_has_the_noise_of_its_sampling(tmp_path):
    """Students are 1 above the teacher at each sampling seed, whose own numbers go up and down with none of theirs."""
    runs = [write_run(tmp_path / str(seed), weighting="bsa", seed=seed, fd=21.0) for seed in range(3)]
    for run in runs:
        text = (run / "scores.csv").read_text()
        (run / "scores.csv").write_text(
            text.replace(",64,ddim,10,", ",64,ddim,20,").replace(",64,ddim,30,", ",64,ddim,20,")
        )
    (found,) = differences(read_results(runs))
    assert (found.mean, found.half_width) == pytest.approx((1.0, 4.302653 * 10 / 3**0.5), rel=1e-5)
    assert not found.excludes_zero
    assert cells([found])[0][4:] == ["+1", "-23.8 to +25.8", "3", "3"]
    assert comma_separated([found]).splitlines() == [
        "first,second,num_steps,second_num_steps,metric,difference,low,high,training_seeds,sampling_seeds",
        "Student (bsa),Teacher (DDIM),4,8,fd_logmel,1,-23.8414,25.8414,3,3",
    ]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a/bsa/0", "a/bsa/1"], "bsa"),
        (["a/bsa-0", "a/bsa-1"], "bsa"),
        (["a/x", "b/y"], "x"),
        (["a/bsa/3"], "bsa-3"),
        (["a/bsa/10", "a/bsa/11"], "bsa"),
        (["a/demo"], "demo"),
    ],
)
def test_labels(names, text, tmp_path):
    assert label([tmp_path / name for name in names]) == text


def test_the_report_tells_them(runs, tmp_path, capsys):
    report(runs, out=tmp_path / "out")
    printed = capsys.readouterr().out
    assert (
        "trained with 3 seeds ± is the 95 % interval over training and sampling seeds together, of teachers" in printed
    )
    assert "| Student (min-snr) | Student (bsa)  | 4      | FD log-mel ↓       | +1 *" in printed
    with (tmp_path / "out" / "differences.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["difference"]) == pytest.approx(-1.0)
    assert (rows[0]["first"], rows[0]["second"]) == ("Student (bsa)", "Student (min-snr)")
    assert (rows[0]["training_seeds"], rows[0]["sampling_seeds"]) == ("3", "3")
    assert "Differences over training seeds" in (tmp_path / "out" / "index.html").read_text()


def test_scores_of_another_evaluator_are_not_put_beside_these(tmp_path):
    runs = [write_run(tmp_path / str(seed), weighting="bsa", seed=seed, fd=9.0) for seed in range(2)]
    (runs[0] / "scores.json").write_text('{"clips": "0", "evaluator": 3}')
    for card, name in (('{"clips": "1", "evaluator": 3}', "clips"), ('{"clips": "0", "evaluator": 2}', "evaluator")):
        (runs[1] / "scores.json").write_text(card)
        with pytest.raises(UserError, match=f"was scored with another {name} than .*; delete its scores.csv"):
            read_results(runs)
    (runs[0] / "scores.json").write_text('{"clips": "0", "readings": {"a": "plain"}}')
    (runs[1] / "scores.json").write_text('{"readings": {"a": "as-audioldm-eval"}}')
    with pytest.raises(UserError, match="was scored with another readings than"):
        read_results(runs)
    (runs[1] / "scores.json").write_text('{"readings": {"b": "as-audioldm-eval"}}')
    assert read_results(runs)


def test_seeds_that_agree_by_chance_tell_nothing(tmp_path):
    """Without spread an interval has no width, and two training seeds are no reason for a mark."""
    runs = [write_run(tmp_path / str(seed), weighting="bsa", seed=seed, fd=21.0) for seed in range(2)]
    (found,) = differences(read_results(runs))
    assert (found.mean, found.half_width) == (1.0, 0)
    assert not found.excludes_zero


def test_runs_of_other_methods_are_told_apart_by_the_name_of_their_method(tmp_path):
    methods = ("progressive", "segmented-consistency")
    runs = [write_run(tmp_path / name, weighting="bsa", seed=0, fd=21.0, method=name) for name in methods]
    students = [(result.name, result.method) for result in read_results(runs) if result.model == "student"]
    assert students == [
        ("Student (bsa)", "progressive"),
        ("Student (segmented consistency, bsa)", "segmented-consistency"),
    ]
