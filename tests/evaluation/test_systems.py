from pathlib import Path

import pytest

from bsa_lightning.evaluation.systems import System, rivals_of, teacher_system
from bsa_lightning.generation.samplers import DDIM, DPMSolver

TEACHER = Path("teacher")
SAMPLERS = (DDIM(), DPMSolver())


def student(num_steps, guidance="baked"):
    return System("student", Path("student"), num_steps, guidance, 3.0, 3.0, "bsa", 1)


def found(*students, scale=3.0, samplers=SAMPLERS):
    rivals = rivals_of(students, teacher=TEACHER, guidance_scale=scale, samplers=samplers)
    assert len(set(rivals)) == len({rival.name for rival in rivals}) == len(rivals)
    return [(rival.sampler.name, rival.guidance_scale, rival.num_steps, rival.nfe) for rival in rivals]


def test_rivals_have_the_students_steps_or_its_evaluations():
    assert found(student(4)) == [
        (sampler, *rival) for sampler in ("ddim", "dpm-solver++") for rival in ((3.0, 4, 8), (3.0, 2, 4), (1.0, 4, 4))
    ]
    assert found(student(4), samplers=[]) == []


@pytest.mark.parametrize(("num_steps", "guided"), [(1, [1]), (3, [3])])
def test_an_odd_number_of_evaluations_has_no_guided_equal(num_steps, guided):
    assert [steps for _, scale, steps, _ in found(student(num_steps), samplers=[DDIM()]) if scale == 3.0] == guided


def test_a_student_with_guidance_outside_has_two_evaluations_a_step():
    assert found(student(2, "outside"), samplers=[DDIM()]) == [
        ("ddim", 3.0, 2, 4),
        ("ddim", 1.0, 4, 4),
        ("ddim", 1.0, 2, 2),
    ]


def test_a_ladder_without_guidance_has_no_unguided_twins():
    assert found(student(4), scale=1.0, samplers=[DDIM()]) == [("ddim", 1.0, 4, 4)]


def test_rivals_of_a_ladder_come_once():
    names = [rival[1:3] for rival in found(student(4), student(2), student(1), samplers=[DDIM()])]
    assert names == [(3.0, 4), (3.0, 2), (1.0, 4), (3.0, 1), (1.0, 2), (1.0, 1)]


def test_only_undistilled_teachers_compete():
    assert not student(4).competes_with(student(4))
    baseline = teacher_system(TEACHER, num_steps=4, guidance_scale=3.0, model="baseline-tiny")
    assert not baseline.competes_with(student(4))


class Heun(DDIM):
    """As a sampler of second order counts, which has a second evaluation in every step but the last."""

    name = "heun"

    def evaluations(self, num_steps):
        return 2 * num_steps - 1


def test_rivals_are_found_by_the_evaluations_of_their_sampler():
    assert found(student(3), samplers=[Heun()]) == [("heun", 3.0, 3, 10), ("heun", 1.0, 3, 5), ("heun", 1.0, 2, 3)]
