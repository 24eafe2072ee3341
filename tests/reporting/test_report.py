import csv

import pytest

from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.scores import Score, ScoreFile
from bsa_lightning.reporting.report import report
from bsa_lightning.reporting.run_folder import read_results


@pytest.fixture
def run(tmp_path):
    """A scored run: the teacher at 8 and 4 steps, a student at 4, three seeds."""
    file = ScoreFile(tmp_path / "run" / "scores.csv")
    file.append(Score("reference", "", 0, 0, "", 0.0, 0, 0, 100, {"fd_logmel": 0.5}))
    for seed in range(3):
        for steps, fd in ((8, 1.0), (4, 2.0)):
            metrics = {"fd_logmel": fd + 0.1 * seed, "trajectory_error": 0.0 if steps == 8 else 0.3}
            file.append(Score("teacher", "", 0, steps, "outside", 2.0, 2 * steps, seed, 64, metrics))
        file.append(Score("student", "bsa", 1, 4, "baked", 2.0, 4, seed, 64, {"fd_logmel": 1.2}))
    return tmp_path / "run"


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
    assert "| Teacher (DDIM) | 8     | 16  | outside 2 | 1.100 ± 0.248" in printed
    assert "Two halves of the 100 reference clips, of different captions: FD log-mel ↓ 0.5." in printed
    names = ["figure.png", "figure.svg", "index.html", "table.csv", "table.md"]
    assert sorted(path.name for path in (run / "report").iterdir()) == names
    with (run / "report" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["fd_logmel"]) == pytest.approx(1.2)
    assert (run / "report" / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_page_holds_its_sounds(run, capsys):
    folder = run / "samples" / "student-bsa-4steps"
    folder.mkdir(parents=True)
    (folder / "00-a-dog-barks.wav").write_bytes(b"RIFF")
    report([run], out=run / "elsewhere")
    page = (run / "elsewhere" / "index.html").read_text()
    assert 'src="data:audio/wav;base64,UklGRg=="' in page
    assert "a dog barks" in page
    assert "elsewhere" in capsys.readouterr().out


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
