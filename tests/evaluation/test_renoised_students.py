"""A student that goes to a clean latent from every time is scored under the sampler of consistency models as well."""

import csv

import pytest
from ladder import data_of, module_of, trainer_of
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation.methods import SegmentedConsistency
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.evaluation.run_systems import RunSystems
from bsa_lightning.evaluation.scores import ScoreFile
from bsa_lightning.evaluation.scoring import Scoring
from bsa_lightning.evaluation.scoring_settings import ScoringSettings


def module(teacher_folder, **settings):
    defaults = {"method": SegmentedConsistency(), "ema_decay": 0.5, "plan": Plan(8, 1, 1, factor=8)}
    return module_of(teacher_folder, **defaults | settings)


@pytest.mark.slow
def test_a_consistency_model_is_scored_in_further_steps(teacher_folder, latents_folder, tmp_path):
    settings = {"num_captions": 20, "seeds": [0], "batch_size": 7, "num_samples": 1, "rivals": []}
    scoring = Scoring(ScoringSettings(ToyClips(24), **settings, renoising_steps=[2, 4], cache=tmp_path / "cache"))
    run = tmp_path / "run"
    trainer_of(run, scoring).fit(module(teacher_folder), data_of(latents_folder))
    trainer_of(run, scoring).test(module(teacher_folder), data_of(latents_folder), verbose=False)
    rows = [row for row in ScoreFile(run / "scores.csv").rows() if row["model"] == "student"]
    assert [(row["method"], row["sampler"], row["num_steps"], row["nfe"], row["round"]) for row in rows] == [
        ("segmented-consistency", sampler, steps, steps, "1")
        for sampler, steps in (("ddim", "1"), ("re-noising", "2"), ("re-noising", "4"))
    ]
    assert len({row["fd_logmel"] for row in rows}) == 3
    names = {
        "student-bsa-by-segmented-consistency-1steps",
        *(f"student-bsa-by-segmented-consistency-with-re-noising-{steps}steps" for steps in (2, 4)),
    }
    assert names <= {path.name for path in (run / "samples").iterdir()}
    with (run / "differences.csv").open(newline="") as file:
        assert {row["first"] for row in csv.DictReader(file)} <= names


@pytest.mark.parametrize(
    ("settings", "steps", "text"),
    [
        ({"method": None}, [2], "no student of this plan and method"),
        ({"plan": Plan(8, 2, 1)}, [2], "no student of this plan and method"),
        ({}, [2, 3], "renoising_steps holds 3, which does not divide the start_steps 8"),
        ({}, [16], "renoising_steps holds 16, which does not divide the start_steps 8"),
    ],
)
def test_steps_that_no_student_can_take_are_refused(teacher_folder, settings, steps, text):
    systems = RunSystems(module(teacher_folder, **settings), ScoringSettings(ToyClips(6), renoising_steps=steps))
    with pytest.raises(UserError, match=text):
        systems.check_renoising()


def test_steps_of_the_teachers_grid_are_taken(teacher_folder):
    for settings, steps in (({}, [2, 4, 8]), ({"plan": Plan(8, 1, 1)}, [2]), ({"method": None}, [])):
        given = ScoringSettings(ToyClips(6), renoising_steps=steps)
        RunSystems(module(teacher_folder, **settings), given).check_renoising()
