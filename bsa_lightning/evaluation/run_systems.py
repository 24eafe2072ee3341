"""The systems of a run that are scored: the teacher at the steps of the ladder, the students, rivals and baselines."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.evaluation.kept_samples import slug
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.evaluation.systems import System, rivals_of, student_system, teacher_system
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
        folders = [run / "rounds" / round_.folder for round_ in plan.rounds]
        finished = [folder for folder in folders if folder.is_dir()]
        if not finished:
            raise UserError(f"{run} has no students to score; run lightning fit first")
        if lacking := [folder.name for folder in folders if folder not in finished]:
            rank_zero_warn(f"{run} has no student {', '.join(lacking)}, so the others alone are scored")
        students = [student_system(folder) for folder in finished]
        systems += rivals_of(
            students,
            teacher=resolve_folder(self.module.teacher_name),
            guidance_scale=self.module.guidance.scale,
            samplers=self.settings.samplers,
        )
        systems += [*students, *map(self.baseline, self.settings.baselines)]
        return list(dict.fromkeys(systems))

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
