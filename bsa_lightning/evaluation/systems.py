"""The systems that are scored: students, undistilled models, and the rivals that each student has among those."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsa_lightning.evaluation.scores import Score
from bsa_lightning.evaluation.system_name import compete
from bsa_lightning.generation.samplers import DDIM, Sampler
from bsa_lightning.models.loading import read_sampling
from bsa_lightning.models.provenance import read_student

_DDIM = DDIM()


@dataclass(frozen=True)
class System:
    """A denoiser with a way to sample it. ``sampling_scale`` is the g that ``predictor`` is given for it."""

    model: str
    folder: Path
    num_steps: int
    guidance: str
    guidance_scale: float
    sampling_scale: float
    weighting: str = ""
    round: int = 0
    sampler: Sampler = _DDIM

    @property
    def name(self) -> str:
        """For folders and progress bars, for example ``student-bsa-8steps``."""
        return self.score(seed=0, num_clips=0).system.folder

    @property
    def nfe(self) -> int:
        """The network evaluations that a clip takes: two a step where guidance is outside of the network."""
        return self.num_steps * (2 if self.guidance == "outside" and self.guidance_scale != 1.0 else 1)

    def competes_with(self, student: System) -> bool:
        """Whether this is an undistilled teacher that ``student`` is to be compared with."""
        return self.model == "teacher" and compete(
            student_steps=student.num_steps, student_nfe=student.nfe, rival_steps=self.num_steps, rival_nfe=self.nfe
        )

    def score(self, *, seed: int, num_clips: int, nfe: int = 0, metrics: dict[str, float] | None = None) -> Score:
        """This system's row of ``scores.csv``; ``nfe`` is what was counted."""
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
        )


def teacher_system(
    folder: Path, *, num_steps: int, guidance_scale: float, model: str = "teacher", sampler: Sampler = _DDIM
) -> System:
    """An undistilled model, guided outside the network; a scale of 1 is no guidance."""
    return System(model, folder, num_steps, "outside", guidance_scale, guidance_scale, sampler=sampler)


def student_system(folder: Path) -> System:
    """A student's folder, sampled as its provenance says.

    Raises:
        UserError: if it is no student of a run, or bears the name of another.
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
    )


def rivals_of(
    students: Iterable[System], *, teacher: Path, guidance_scale: float, samplers: Sequence[Sampler]
) -> list[System]:
    """The undistilled teacher at each student's steps and at its evaluations, with and without guidance.

    Args:
        students: systems of a ladder.
        teacher: folder of the ladder's first teacher.
        guidance_scale: the scale at which the ladder is distilled; at 1 there are no unguided twins.
        samplers: each gives its own rivals.
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
