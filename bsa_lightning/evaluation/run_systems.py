"""The systems of a run that are scored: the teacher at the steps of the ladder, the students, rivals and baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.distillation.rounds import Round
from bsa_lightning.evaluation.kept_samples import slug
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.evaluation.systems import System, rivals_of, student_system, teacher_system
from bsa_lightning.generation.samplers import Renoising
from bsa_lightning.models.loading import load_codec, load_conditioner, read_sampling
from bsa_lightning.models.registry import resolve_folder


class RunSystems:
    """Names the systems of a run.

    Args:
        module: the module of the run, attached to its trainer.
        settings: the settings of the scoring.
    """

    def __init__(self, module: ProgressiveDistillation, settings: ScoringSettings) -> None:
        self.module, self.settings = module, settings

    @property
    def full_teacher(self) -> System:
        """The undistilled teacher at its full steps, whose samples the trajectory error compares with."""
        return self.teacher(self.module.plan.start_steps)

    def teacher(self, num_steps: int) -> System:
        """Returns the undistilled teacher under DDIM, with the guidance of the ladder."""
        return teacher_system(
            resolve_folder(self.module.teacher_name), num_steps=num_steps, guidance_scale=self.module.guidance.scale
        )

    def of_round(self, folder: Path) -> list[System]:
        """Returns the student of the current round, which is in ``folder``, and before it the teacher at its steps."""
        return [self.teacher(self.module.current_round.num_steps), student_system(folder)]

    def all(self) -> list[System]:
        """Returns the teacher at every step count of the ladder, the students' rivals, the students, and the baselines.

        Warns if the run has not all of its students.

        Raises:
            UserError: if the run has no student.
        """
        plan, run = self.module.plan, self.module.run_folder
        systems = [self.full_teacher, *(self.teacher(round_.num_steps) for round_ in plan.rounds)]
        finished = [round_ for round_ in plan.rounds if (run / "rounds" / round_.folder).is_dir()]
        if not finished:
            raise UserError(f"{run} has no students to score; run lightning fit first")
        if lacking := [round_.folder for round_ in plan.rounds if round_ not in finished]:
            rank_zero_warn(f"{run} has no student {', '.join(lacking)}, so the others alone are scored")
        students = [system for round_ in finished for system in self._students(round_)]
        systems += rivals_of(
            students,
            teacher=resolve_folder(self.module.teacher_name),
            guidance_scale=self.module.guidance.scale,
            samplers=self.settings.samplers,
        )
        systems += [*students, *map(self.baseline, self.settings.baselines)]
        return list(dict.fromkeys(systems))

    def _students(self, round_: Round) -> list[System]:
        """Returns the student of a round under each of its samplers."""
        student = student_system(self.module.run_folder / "rounds" / round_.folder)
        further = self.settings.renoising_steps if self.module.method.goes_to_clean(round_) else ()
        return [student, *(replace(student, num_steps=num_steps, sampler=Renoising()) for num_steps in further)]

    def check_renoising(self) -> None:
        """Refuses ``renoising_steps`` if no student can be sampled so, or at times that no student is trained at.

        Raises:
            UserError: naming the setting.
        """
        plan, steps = self.module.plan, list(self.settings.renoising_steps)
        if steps and not any(map(self.module.method.goes_to_clean, plan.rounds)):
            raise UserError(
                f"renoising_steps is {steps}, but no student of this plan and method goes from every time to t = 0 in"
                " one step; name the method SegmentedConsistency and an end_steps of 1, or leave renoising_steps out"
            )
        if wrong := [number for number in steps if plan.start_steps % number]:
            raise UserError(
                f"renoising_steps holds {wrong[0]}, which does not divide the start_steps {plan.start_steps} of the"
                " plan, so that the student is not trained at its times; name divisors"
            )

    def baseline(self, model: str) -> System:
        """Returns another undistilled model, at the full steps and the guidance of the ladder.

        Args:
            model: the folder of the model, or "tiny" for the built-in one.

        Raises:
            UserError: if its codec or text encoder is not the teacher's, or it is a student.
        """
        for part, load in (("codec", load_codec), ("text encoder", load_conditioner)):
            if load(model).fingerprint != load(self.module.teacher_name).fingerprint:
                raise UserError(
                    f'baselines names "{model}", whose {part} is not that of teacher "{self.module.teacher_name}";'
                    " leave it out"
                )
        if (own := read_sampling(model).guidance) != "outside":
            raise UserError(f'baselines names "{model}", a student with guidance {own}; name an undistilled model')
        return teacher_system(
            resolve_folder(model),
            num_steps=self.module.plan.start_steps,
            guidance_scale=self.module.guidance.scale,
            model=f"baseline-{slug(model)}",
        )
