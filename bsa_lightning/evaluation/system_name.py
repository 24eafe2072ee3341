"""What scored systems are called, in folders and for readers, and which of them compete."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DDIM = "ddim"
"""The sampler of students, and of runs that were scored before there was a column for it."""
_TITLES = {DDIM: "DDIM", "dpm-solver++": "DPM-Solver++"}


@dataclass(frozen=True)
class SystemName:
    """What tells a system of a run from the others, but for its round."""

    model: str
    """"teacher", "student", "reference" or "baseline-" and a name."""
    weighting: str = ""
    """Of a student; empty for others."""
    sampler: str = DDIM
    unguided: bool = False
    """Whether an undistilled model goes without guidance."""
    num_steps: int = 0
    """0 for sound that was not sampled."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> SystemName:
        """The name of a row of ``scores.csv``, whose cells may be text."""
        unguided = not row["weighting"] and is_unguided(row["guidance"], float(row["guidance_scale"]))
        return cls(row["model"], row["weighting"], row["sampler"], unguided, int(row["num_steps"]))

    @property
    def line(self) -> str:
        """The name that all step counts share, for example ``teacher-dpm-solver++-unguided``."""
        sampler = "" if self.sampler in ("", DDIM) else self.sampler
        return "-".join(
            part for part in (self.model, self.weighting, sampler, "unguided" if self.unguided else "") if part
        )

    @property
    def folder(self) -> str:
        """For folders and progress bars, for example ``student-bsa-8steps`` or ``teacher-dpm-solver++-4steps``."""
        return f"{self.line}-{self.num_steps}steps" if self.num_steps else self.line

    @property
    def title(self) -> str:
        """For readers, without the steps, for example "Teacher (DPM-Solver++, no guidance)"."""
        if self.model == "student":
            return f"Student ({self.weighting})" if self.weighting else "Student"
        told = [_TITLES.get(self.sampler, self.sampler)] if self.model == "teacher" else []
        told += ["no guidance"] if self.unguided else []
        return self.model.capitalize() + (f" ({', '.join(told)})" if told else "")

    @classmethod
    def from_folder(cls, folder: str) -> SystemName:
        """The inverse of :attr:`folder`."""
        if not (found := re.fullmatch(r"(.+)-(\d+)steps", folder)):
            return cls(folder)
        line, num_steps = found[1], int(found[2])
        if line.startswith("student-"):
            return cls("student", line.removeprefix("student-"), num_steps=num_steps)
        name, unguided = line.removesuffix("-unguided"), line.endswith("-unguided")
        model, _, sampler = name.partition("-") if name.startswith("teacher-") else (name, "", "")
        return cls(model, "", sampler or DDIM, unguided, num_steps)


def is_unguided(guidance: str, guidance_scale: float) -> bool:
    """Whether a system of this guidance is an undistilled model that goes without: "outside" at a scale of 1."""
    return guidance == "outside" and guidance_scale == 1.0


def compete(*, student_steps: int, student_nfe: int, rival_steps: int, rival_nfe: int) -> bool:
    """Whether a student is to be compared with an undistilled model: at equal steps, or at equal evaluations."""
    return rival_steps == student_steps or rival_nfe == student_nfe
