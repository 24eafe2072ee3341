"""The names of scored systems, in folders, progress bars, tables and figures; needs no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bsa_lightning.models.provenance import PROGRESSIVE

DDIM_NAME = "ddim"
"""The name of the sampler of students, and of runs that were scored before ``scores.csv`` had a column for it."""
_TITLES = {DDIM_NAME: "DDIM", "dpm-solver++": "DPM-Solver++"}
_BY, _WITH = "-by-", "-with-"
"""What stands before the method and before the sampler in the folder of a student."""


@dataclass(frozen=True)
class SystemName:
    """The parts of a system's name, which distinguish it from the other systems of a run."""

    model: str
    """"teacher", "student", "reference", or "baseline-" and a name."""
    weighting: str = ""
    """The name of a student's weighting; empty for other systems."""
    sampler: str = DDIM_NAME
    """The name of the sampler."""
    unguided: bool = False
    """Whether an undistilled model is sampled without guidance."""
    num_steps: int = 0
    """The number of steps of the sampler; 0 for sound that was not sampled."""
    method: str = PROGRESSIVE
    """The name of a student's method of distillation; "progressive" for other systems, too."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> SystemName:
        """Returns the name of the system of a row of ``scores.csv``, whose cells may be text."""
        unguided = not row["weighting"] and is_unguided(row["guidance"], float(row["guidance_scale"]))
        method = (row["weighting"] and row["method"]) or PROGRESSIVE
        return cls(row["model"], row["weighting"], row["sampler"], unguided, int(row["num_steps"]), method)

    @property
    def line(self) -> str:
        """The name that all step counts share, for example ``teacher-dpm-solver++-unguided``."""
        sampler = "" if self.sampler in ("", DDIM_NAME) else self.sampler
        if self.model == "student":
            method = "" if self.method == PROGRESSIVE else _BY + self.method
            return "-".join(filter(None, (self.model, self.weighting))) + method + (sampler and _WITH + sampler)
        return "-".join(
            part for part in (self.model, self.weighting, sampler, "unguided" if self.unguided else "") if part
        )

    @property
    def folder(self) -> str:
        """The name in folders and progress bars, for example ``teacher-dpm-solver++-4steps``."""
        return f"{self.line}-{self.num_steps}steps" if self.num_steps else self.line

    @property
    def title(self) -> str:
        """The name for readers, without the number of steps, for example "Teacher (DPM-Solver++, no guidance)"."""
        if self.model == "student":
            sampler = "" if self.sampler == DDIM_NAME else _TITLES.get(self.sampler, self.sampler)
            method = "" if self.method == PROGRESSIVE else self.method.replace("-", " ")
            how = ", ".join(filter(None, (method, self.weighting, sampler)))
            return f"Student ({how})" if how else "Student"
        details = [_TITLES.get(self.sampler, self.sampler)] if self.model == "teacher" else []
        details += ["no guidance"] if self.unguided else []
        return self.model.capitalize() + (f" ({', '.join(details)})" if details else "")

    @classmethod
    def from_folder(cls, folder: str) -> SystemName:
        """Returns the name that :attr:`folder` gives this folder for."""
        if not (found := re.fullmatch(r"(.+)-(\d+)steps", folder)):
            return cls(folder)
        line, num_steps = found[1], int(found[2])
        if line.startswith("student-"):
            line, _, sampler = line.removeprefix("student-").partition(_WITH)
            weighting, _, method = line.partition(_BY)
            return cls("student", weighting, sampler or DDIM_NAME, False, num_steps, method or PROGRESSIVE)
        name, unguided = line.removesuffix("-unguided"), line.endswith("-unguided")
        model, _, sampler = name.partition("-") if name.startswith("teacher-") else (name, "", "")
        return cls(model, "", sampler or DDIM_NAME, unguided, num_steps)


def is_unguided(guidance: str, guidance_scale: float) -> bool:
    """Returns whether this is the guidance of an undistilled model without guidance: "outside" at a scale of 1."""
    return guidance == "outside" and guidance_scale == 1.0
