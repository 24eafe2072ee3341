"""Which rival is the best, and what the note below the table says of it."""

import math
from dataclasses import replace

import pytest
from command_lines import ROOT

from bsa_lightning.evaluation.system_name import SystemName
from bsa_lightning.reporting import table
from bsa_lightning.reporting.best_rivals import matches, worse_than_teacher
from bsa_lightning.reporting.results import Result

ERROR = "trajectory_error"


def teacher(num_steps, error, *, guided=True, sampler="ddim", half_width=0.01):
    name = SystemName("teacher", sampler=sampler, unguided=not guided).title
    scale, nfe = (3.0, 2 * num_steps) if guided else (1.0, num_steps)
    metrics = {ERROR: (error, half_width), "clap_score": (error, half_width)}
    return Result("teacher", "", num_steps, "outside", scale, nfe, 64, (0, 1), metrics, None, name, sampler=sampler)


def student(num_steps, error, *, weighting="bsa", half_width=0.01, sampler="ddim"):
    name = SystemName("student", weighting, sampler).title
    metrics = {ERROR: (error, half_width), "clap_score": (error, half_width)}
    told = (num_steps, "baked", 3.0, num_steps, 64, (0, 1), metrics, None, name)
    return Result("student", weighting, *told, sampler=sampler)


TEACHERS = [
    teacher(8, 0.0, half_width=0.0),
    teacher(4, 0.2),
    teacher(2, 0.5),
    teacher(4, 0.4, guided=False),
    teacher(2, 0.6, guided=False),
    teacher(4, 0.1, sampler="dpm-solver++"),
    teacher(4, 0.3, sampler="dpm-solver++", guided=False),
]


def found(*students, metric=ERROR, higher_is_better=False):
    return [
        (match.rival.name, match.rival.num_steps, match.verdict)
        for match in matches([*TEACHERS, *students], metric, higher_is_better=higher_is_better)
    ]


def test_best_rivals_at_equal_evaluations_and_at_equal_steps():
    assert found(student(4, 0.25)) == [
        ("Teacher (DPM-Solver++, no guidance)", 4, "better"),
        ("Teacher (DPM-Solver++)", 4, "worse"),
    ]
    assert found(student(2, 0.5)) == [
        ("Teacher (DDIM, no guidance)", 2, "better"),
        ("Teacher (DDIM)", 2, "not told apart"),
    ]
    assert found(student(16, 0.1)) == []  # the teacher that errors are measured from has none of its own


def test_of_rivals_that_agree_the_first_is_named():
    """DPM-Solver++ in two steps is DDIM, but for the last bits."""
    results = [teacher(2, 0.2000001), teacher(2, 0.2, sampler="dpm-solver++"), student(2, 0.1)]
    assert [match.rival.name for match in matches(results, ERROR, higher_is_better=False)] == ["Teacher (DDIM)"]


@pytest.mark.parametrize(
    ("error", "half_width", "verdict"),
    [(0.27, 0.01, "better"), (0.29, 0.01, "not told apart"), (0.33, 0.01, "worse"), (0.1, math.nan, "not told apart")],
)
def test_apart_is_where_intervals_do_not_meet(error, half_width, verdict):
    assert found(student(4, error, half_width=half_width))[0][2] == verdict


def test_scores_are_better_the_higher():
    name, _, verdict = found(student(4, 0.9), metric="clap_score", higher_is_better=True)[0]
    assert (name, verdict) == ("Teacher (DDIM)", "better")  # 2 steps: 0.5


def test_the_note_says_it_in_one_sentence():
    students = [student(4, 0.25), student(4, 0.3, weighting="snr"), student(2, 0.59)]
    assert (
        " The best undistilled rivals by Trajectory error ↓, and which students are better or worse with intervals"
        " apart: at 4 evaluations Teacher (DPM-Solver++, no guidance), 4 steps, 0.300 ± 0.010 (better: Student (bsa);"
        " not told apart: Student (snr)), and Teacher (DPM-Solver++), 4 steps and 8 evaluations, 0.100 ± 0.010 (worse:"
        " Student (bsa), Student (snr)); at 2 evaluations Teacher (DDIM, no guidance), 2 steps, 0.600 ± 0.010 (not told"
        " apart: Student (bsa)), and Teacher (DDIM), 2 steps and 4 evaluations, 0.500 ± 0.010 (worse: Student (bsa))."
    ) in table.note([*TEACHERS, *students])
    assert "rivals" not in table.note(students)


@pytest.mark.parametrize(
    ("results", "worse"),
    [
        ([student(4, 0.23)], ["Student (bsa), 4 steps (Trajectory error ↓)"]),
        ([student(4, 0.21)], []),
        ([student(4, 0.1)], []),
        ([student(4, 0.23, half_width=math.nan)], []),
        ([student(8, 0.1)], []),  # the teacher that errors are measured from
        (
            [student(4, 0.23), student(2, 0.4), student(2, 0.6, weighting="snr")],
            ["Student (bsa), 4", "Student (snr), 2"],
        ),
    ],
)
def test_a_student_that_is_worse_than_its_teacher_in_as_many_steps_is_named_with_the_page(results, worse):
    note = table.note([*TEACHERS, *results])
    assert ("docs/when-the-student-is-worse.md, in the documentation, says what to check." in note) == bool(worse)
    sentence = note.partition("Worse than the undistilled teacher in as many steps of DDIM, with intervals apart: ")[2]
    assert sentence.count("Student") == len(worse)
    assert all(entry in sentence for entry in worse)
    assert (ROOT / table.WHEN_WORSE).is_file()


def test_worse_distances_are_named_too():
    far, near = ({"fd_mine": (value, 0.1), "kad_mine": (value, 0.1)} for value in (9.0, 5.0))
    results = [replace(teacher(4, 0.2), metrics=near), replace(student(4, 0.2), metrics=far)]
    assert [metrics for _, metrics in worse_than_teacher(results)] == [["fd_mine"]]


def test_the_table_names_guidance_and_leads_with_the_trajectory_error():
    header, rows = table.cells([*TEACHERS[1:4], student(4, 0.25)])
    assert header == ["Model", "Steps", "NFE", "Guidance", "Trajectory error ↓", "CLAP score ↑"]
    assert [row[:4] for row in rows] == [
        ["Teacher (DDIM)", "4", "8", "outside 3"],
        ["Teacher (DDIM)", "2", "4", "outside 3"],
        ["Teacher (DDIM, no guidance)", "4", "4", "none"],
        ["Student (bsa)", "4", "4", "baked 3"],
    ]


def test_new_noise_in_every_step_is_not_judged_by_the_trajectory_error():
    """It leads elsewhere by its nature, so that only what looks at distributions of sound tells."""
    renoised = replace(student(4, 0.9, sampler="re-noising"), metrics={ERROR: (0.9, 0.01), "fd_logmel": (0.9, 0.01)})
    teachers = [replace(each, metrics={**each.metrics, "fd_logmel": (0.2, 0.01)}) for each in TEACHERS]
    assert not matches([*teachers, renoised], ERROR, higher_is_better=False)
    assert worse_than_teacher([*teachers, renoised]) == [(renoised, ["fd_logmel"])]
    plain = replace(renoised, sampler="ddim")
    assert worse_than_teacher([*teachers, plain]) == [(plain, [ERROR, "fd_logmel"])]
