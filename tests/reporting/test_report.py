import base64
import csv
import shutil

import pytest
from reporting.runs import sine, write_run, write_scores, write_wav

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.scores import Score, ScoreFile
from bsa_lightning.reporting import table
from bsa_lightning.reporting.clip_differences import read_differences
from bsa_lightning.reporting.page import html
from bsa_lightning.reporting.report import report
from bsa_lightning.reporting.results import Result, read_results


@pytest.fixture
def run(tmp_path):
    return write_scores(tmp_path / "run")


def test_results_are_gathered_over_seeds(run):
    results = read_results([run])
    assert [(r.name, r.num_steps, r.nfe) for r in results[:3]] == [
        ("Teacher (DDIM)", 8, 16),
        ("Teacher (DDIM)", 4, 8),
        ("Student (bsa)", 4, 4),
    ]
    mean, half_width = results[0].metrics["fd_logmel"]
    assert mean == pytest.approx(1.1)
    assert half_width == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)


def test_report_writes_and_prints(run, capsys):
    report([run])
    printed = capsys.readouterr().out
    assert "| Teacher (DDIM) | 8     | 16  | outside 2 | 0.000 ± 0.000      | 1.100 ± 0.248" in printed
    assert "Two halves of the 100 reference clips, of different captions: FD log-mel ↓ 0.5." in printed
    names = ["figure.png", "figure.svg", "index.html", "table.csv", "table.md"]
    assert sorted(path.name for path in (run / "report").iterdir()) == names
    with (run / "report" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["fd_logmel"]) == pytest.approx(1.2)
    assert (run / "report" / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_page_holds_its_sounds(run, capsys):
    path = run / "samples" / "student-bsa-4steps" / "00-a-dog-barks.wav"
    write_wav(path, sine(440.0))
    report([run], out=run / "elsewhere")
    page = (run / "elsewhere" / "index.html").read_text(encoding="utf-8")
    assert f'src="data:audio/wav;base64,{base64.b64encode(path.read_bytes()).decode()}"' in page
    assert ">A dog barks</h3>" in page
    assert ">Student (bsa), 4 steps</b>" in page
    assert "elsewhere" in capsys.readouterr().out


def test_page_shows_the_digits_of_the_table(run):
    report([run])
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    lines = (run / "report" / "table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert len(rows) == 5
    for name, *cells in rows[2:]:
        text = f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        assert text in page.replace(' class="number"', "")


def test_the_title_names_all_runs_though_one_of_each_group_is_shown(run):
    results = read_results([run])
    others = [run.with_name(f"bsa-{i}") for i in range(12)]
    assert '<body data-report="run">' in html([run], results)
    assert "<h1>bsa-0, bsa-1, bsa-2</h1>" in html([run], results, scored=others[:3])
    names = ", ".join(f"bsa-{i}" for i in range(8))
    assert f"<h1>{names} and 4 more</h1>" in html([run], results, scored=others)


def test_the_page_has_the_curve_of_the_training_loss(run):
    (run / "metrics.csv").write_text("step,train/loss\n9,0.4\n19,0.2\n")
    assert ">Training loss</text>" in html([run], read_results([run]))


def test_paired_differences(run, tmp_path):
    assert read_differences(run) == []
    row = ["Student (bsa), 4 steps", "Teacher (DDIM), 4 steps ★", "FD log-mel ↓", "-1.23", "-2.5 to +0.03", "64"]
    assert read_differences(write_run(tmp_path / "other")) == [row]
    report([tmp_path / "other"])
    page = (tmp_path / "other" / "report" / "index.html").read_text(encoding="utf-8")
    assert f'<td class="number">{row[3]}</td><td class="number">{row[4]}</td>' in page


@pytest.mark.parametrize(
    ("mean", "text"),
    [(0.0, "0.000 ± 0.001"), (0.000521, "0.00052 ± 0.00100"), (0.0521, "0.052 ± 0.001"), (-12.345, "-12.35 ± 0.00")],
)
def test_small_numbers_keep_two_digits(mean, text):
    result = Result("student", "bsa", 4, "baked", 2.0, 4, 64, (0,), {"m": (mean, 0.001)}, None, "Student")
    assert table.cells([result])[1][0][-1] == text


def test_what_a_run_names_is_text_and_no_html(tmp_path, run):
    hostile = tmp_path / "<script>alert(1)<&script>"
    shutil.copytree(run, hostile)
    (hostile / "config.yaml").write_text("model: {init_args: {teacher: </pre><script>alert(2)</script>}}")
    (hostile / "samples").mkdir()
    write_wav(hostile / "samples" / "<b>x" / "0.wav", sine(440.0))
    report([hostile], out=tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>x" not in page


def test_without_samples_the_page_says_so(run):
    report([run])
    assert "This run kept no samples." in (run / "report" / "index.html").read_text(encoding="utf-8")


def test_a_page_of_the_demos_size_is_small(tmp_path):
    run = write_run(tmp_path / "run", captions=("A", "B", "C", "D"))
    report([run])
    sounds = sum(path.stat().st_size for path in run.rglob("*.wav"))
    assert (run / "report" / "index.html").stat().st_size < 1.4 * sounds + 400_000


def test_rows_of_fewer_seeds_are_marked(run):
    file = ScoreFile(run / "scores.csv")
    file.append(Score("student", "bsa", 2, 2, "baked", 2.0, 2, 0, 64, {"fd_logmel": 1.3}))
    results = read_results([run])
    _, rows = table.cells(results)
    assert [row[0] for row in rows] == ["Teacher (DDIM)", "Teacher (DDIM)", "Student (bsa)", "Student (bsa) †"]
    note = table.note(results)
    assert "† scored on fewer seeds than the others (1 of 3); run lightning test to score the rest." in note


def test_seconds_a_clip_are_a_column_and_no_metric(run, tmp_path):
    assert "Seconds a clip" not in table.cells(read_results([run]))[0]
    again = tmp_path / "again"
    for folder, seconds in ((run, 0.25), (again, 0.75)):
        write_scores(folder)
        file = ScoreFile(folder / "scores.csv")
        for row in file.rows():
            row["seconds_per_clip"] = str(seconds * int(row["num_steps"]))
            metrics = {n: float(row[n]) for n in ("fd_logmel", "trajectory_error", "seconds_per_clip") if row[n]}
            number = {n: int(row[n]) for n in ("round", "num_steps", "nfe", "seed", "num_clips")}
            file.append(Score(model=row["model"], weighting=row["weighting"], guidance=row["guidance"],
                              guidance_scale=float(row["guidance_scale"]), metrics=metrics, **number))  # fmt: skip
    header, rows = table.cells(read_results([run, again]))
    assert header == ["Model", "Steps", "NFE", "Seconds a clip", "Guidance", "Trajectory error ↓", "FD log-mel ↓"]
    assert [row[:4] for row in rows][:3] == [
        ["Teacher (DDIM)", "8", "16", "2"],
        ["Teacher (DDIM)", "4", "8", "1"],
        ["Student (bsa)", "4", "4", "1"],
    ]
    lines = list(csv.DictReader(table.comma_separated(read_results([run])).splitlines()))
    assert lines[0]["seconds_per_clip"] == "2"
    assert lines[0]["seconds_per_clip_ci95"] == "0"


def test_the_teacher_of_two_runs_is_one_teacher(run, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    (again / "scores.csv").write_text((run / "scores.csv").read_text())
    assert [len(result.seeds) for result in read_results([run, again])] == [3, 3, 3, 1]


def test_systems_that_differ_are_told_apart_by_as_few_words_as_needed(run, tmp_path):
    other = ScoreFile(tmp_path / "other" / "scores.csv")
    for guidance, scale, fd in (("baked", 2.0, 1.3), ("outside", 3.0, 1.4)):
        other.append(Score("student", "bsa", 1, 4, guidance, scale, 4, 0, 64, {"fd_logmel": fd}))
    assert [result.name for result in read_results([run, tmp_path / "other"])] == [
        "Teacher (DDIM)",
        "Teacher (DDIM)",
        "Student (bsa), baked g=2, other",
        "Student (bsa), baked g=2, run",
        "Student (bsa), outside g=3",
        "Reference",
    ]


def test_rivals_of_one_run_are_told_apart(run):
    file = ScoreFile(run / "scores.csv")
    for sampler in ("ddim", "dpm-solver++"):
        file.append(Score("teacher", "", 0, 4, "outside", 1.0, 4, 0, 64, {"fd_logmel": 1.4}, sampler))
    file.append(Score("teacher", "", 0, 4, "outside", 2.0, 8, 0, 64, {"fd_logmel": 1.4}, "dpm-solver++"))
    _, rows = table.cells(read_results([run]))
    assert [row[:4] for row in rows] == [
        ["Teacher (DDIM)", "8", "16", "outside 2"],
        ["Teacher (DDIM)", "4", "8", "outside 2"],
        ["Teacher (DDIM, no guidance) †", "4", "4", "none"],
        ["Teacher (DPM-Solver++) †", "4", "8", "outside 2"],
        ["Teacher (DPM-Solver++, no guidance) †", "4", "4", "none"],
        ["Student (bsa)", "4", "4", "baked 2"],
    ]


def test_scores_from_before_samplers_had_a_column_are_reported(run, tmp_path):
    with (run / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    old = tmp_path / "old"
    old.mkdir()
    with (old / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "sampler"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    assert table.cells(read_results([old])) == table.cells(read_results([run]))
    assert len(read_results([old, run])) == len(read_results([run])), "the teacher of both is one"


def test_mistakes(tmp_path, run):
    with pytest.raises(UserError, match="does not exist"):
        report([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="lightning test"):
        report([tmp_path / "empty"])
    ScoreFile(tmp_path / "empty" / "scores.csv").append(
        Score("reference", "", 0, 0, "", 0.0, 0, 0, 9, {"fd_logmel": 1})
    )
    with pytest.raises(UserError, match="holds no scores of any system yet"):
        report([tmp_path / "empty"])
    ScoreFile(run / "scores.csv").append(Score("student", "snr", 1, 4, "baked", 2.0, 4, 0, 10, {"fd_logmel": 1.2}))
    with pytest.raises(UserError, match="cannot be compared"):
        report([run])
