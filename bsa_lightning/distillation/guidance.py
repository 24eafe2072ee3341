"""Where guidance goes when a guided teacher is distilled. Every mode says what it is called and what it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod

from bsa_lightning.errors import UserError


class Guidance(ABC):
    """How the guidance scale g enters the rounds of a ladder.

    Args:
        scale: g in uncond + g (cond - uncond); 1 is no guidance.
    """

    name: str

    def __init__(self, scale: float) -> None:
        if scale < 0:
            raise UserError(f"guidance scale is {scale}, but must be at least 0; 1 is no guidance, Tango uses 3")
        self.scale = scale

    @abstractmethod
    def target_scale(self, round_index: int) -> float:
        """Guidance of the teacher whose two steps are the target of a round (0 is the first)."""

    @property
    @abstractmethod
    def student_scale(self) -> float:
        """Guidance that a student is sampled with, by the caller, outside its network."""

    @property
    @abstractmethod
    def drops_captions(self) -> bool:
        """Whether the student must learn its null branch too."""

    @property
    def teacher_evaluations(self) -> int:
        """Network evaluations of one guided step of the first teacher."""
        return evaluations(self.scale)

    @property
    def student_evaluations(self) -> int:
        """Network evaluations of one step of a student."""
        return evaluations(self.student_scale)


class Outside(Guidance):
    """The student keeps two evaluations a step; each branch is distilled, the null branch by caption dropout."""

    name = "outside"

    def target_scale(self, round_index: int) -> float:  # noqa: ARG002
        return 1.0

    @property
    def student_scale(self) -> float:
        return self.scale

    @property
    def drops_captions(self) -> bool:
        return True


class Baked(Guidance):
    """The first round's teacher is guided; its student needs one evaluation a step, and so do all that follow."""

    name = "baked"

    def target_scale(self, round_index: int) -> float:
        return self.scale if round_index == 0 else 1.0

    @property
    def student_scale(self) -> float:
        return 1.0

    @property
    def drops_captions(self) -> bool:
        return False


def evaluations(scale: float) -> int:
    """Network evaluations of one step that is guided outside the network by ``scale``."""
    return 1 if scale == 1.0 else 2
