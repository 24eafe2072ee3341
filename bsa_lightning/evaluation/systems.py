"""The systems that are scored: students and undistilled models, each with the way in which it is sampled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsa_lightning.evaluation.rivals import is_comparable
from bsa_lightning.evaluation.scores import Score
from bsa_lightning.generation.samplers import DDIM, Sampler
from bsa_lightning.models.loading import read_sampling
from bsa_lightning.models.provenance import PROGRESSIVE, read_student

_DDIM = DDIM()


@dataclass(frozen=True)
class System:
    """A denoiser and the way in which it is sampled.

    Args:
        model: "teacher", "student", or "baseline-" and a name.
        folder: the folder of the denoiser.
        num_steps: the number of steps of the sampler, at least 1.
        guidance: the name of the mode of guidance, which is "outside" for undistilled models.
        guidance_scale: the guidance scale g that the system stands for, as scores record it.
        sampling_scale: the guidance scale that ``predictor`` is given to sample it, 1 where guidance is in the weights.
        weighting: the name of a student's weighting; empty for undistilled models.
        round: the round that made a student, from 1; 0 for undistilled models.
        sampler: the sampler.
        method: the name of a student's method of distillation; empty for undistilled models.
    """

    model: str
    folder: Path
    num_steps: int
    guidance: str
    guidance_scale: float
    sampling_scale: float
    weighting: str = ""
    round: int = 0
    sampler: Sampler = _DDIM
    method: str = ""

    @property
    def name(self) -> str:
        """The name in folders and progress bars, for example ``student-bsa-8steps``."""
        return self.row(seed=0, num_clips=0).system.folder

    @property
    def nfe(self) -> int:
        """The number of network evaluations of a clip: those of the sampler, twice where guidance is outside."""
        is_guided = self.guidance == "outside" and self.guidance_scale != 1.0
        return self.sampler.evaluations(self.num_steps) * (2 if is_guided else 1)

    def competes_with(self, student: System) -> bool:
        """Returns whether this is an undistilled teacher that ``student`` is to be compared with."""
        return self.model == "teacher" and is_comparable(student, self)

    def row(self, *, seed: int, num_clips: int, nfe: int = 0, metrics: dict[str, float] | None = None) -> Score:
        """Returns this system's row of ``scores.csv``.

        Args:
            seed: the seed of the sampling noise.
            num_clips: the number of clips that were generated.
            nfe: the number of network evaluations of a clip that were counted; not part of the row's key.
            metrics: the value of each metric by its column.
        """
        return Score(
            model=self.model,
            weighting=self.weighting,
            round=self.round,
            num_steps=self.num_steps,
            guidance=self.guidance,
            guidance_scale=self.guidance_scale,
            nfe=nfe,
            seed=seed,
            num_clips=num_clips,
            metrics=metrics or {},
            sampler=self.sampler.name,
            method=self.method,
        )


def teacher_system(
    folder: Path, *, num_steps: int, guidance_scale: float, model: str = "teacher", sampler: Sampler = _DDIM
) -> System:
    """Returns the system of an undistilled model, which is guided outside of the network.

    Args:
        folder: the folder of the model.
        num_steps: the number of steps of the sampler, at least 1.
        guidance_scale: the guidance scale; 1 is no guidance.
        model: "teacher", or "baseline-" and a name.
        sampler: the sampler.
    """
    return System(model, folder, num_steps, "outside", guidance_scale, guidance_scale, sampler=sampler)


def student_system(folder: Path) -> System:
    """Returns the system of a student, sampled as its provenance says.

    Raises:
        UserError: if the folder is not that of a run's student, or has the name of another student.
    """
    provenance = read_student(folder)
    return System(
        model="student",
        folder=folder,
        num_steps=provenance["num_steps"],
        guidance=provenance["guidance"],
        guidance_scale=provenance["guidance_scale"],
        sampling_scale=read_sampling(folder).scale(),
        weighting=provenance["weighting"],
        round=provenance["round"],
        method=provenance.get("method", PROGRESSIVE),
    )


def rivals_of(
    students: Iterable[System], *, teacher: Path, guidance_scale: float, samplers: Sequence[Sampler]
) -> list[System]:
    """Returns the undistilled teachers of as many steps or evaluations as the students, with and without guidance.

    Args:
        students: the systems of the students of a ladder.
        teacher: the folder of the ladder's first teacher.
        guidance_scale: the guidance scale at which the ladder is distilled; at 1 no rival is guided.
        samplers: the samplers of the teacher, each of which gives rivals of its own.
    """
    found = [
        system
        for student in students
        for sampler in samplers
        for scale in dict.fromkeys((guidance_scale, 1.0))
        for num_steps in range(student.nfe, 0, -1)
        if (
            system := teacher_system(teacher, num_steps=num_steps, guidance_scale=scale, sampler=sampler)
        ).competes_with(student)
    ]
    return list(dict.fromkeys(found))
