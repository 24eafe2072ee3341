"""Where guidance goes when a guided teacher is distilled. Every mode says what it is called and what it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.sampling_settings import LARGEST_SCALE


class GuidanceMode(ABC):
    """How the guidance scale g enters the rounds of a ladder.

    Args:
        scale: g in uncond + g (cond - uncond), from 0 to 1000; 1 is no guidance. Scores compare with the first
            teacher at this g.
    """

    name: str
    caption_dropout: float = 0.0
    """The share of captions that training replaces by none, so that a student learns its null branch, too."""
    range: tuple[float, float] | None = None
    """Lowest and highest g that a student is trained for, where it can be sampled at more than one."""

    def __init__(self, scale: float) -> None:
        check_number(
            "guidance scale", scale, at_least=0, at_most=LARGEST_SCALE, advice="1 is no guidance, Tango uses 3"
        )
        self.scale = scale

    @abstractmethod
    def target_scale(self, round_index: int, uniform: Tensor) -> float | Tensor:
        """g of the teacher whose two steps are the target of a round (0 is the first), one for all or (batch,).

        ``uniform`` (batch,) in [0, 1) is this batch's draw of scales, for a mode that draws them.
        """

    @property
    @abstractmethod
    def student_scale(self) -> float:
        """g at which ``predictor`` samples a finished student."""

    def check_teacher(self, teacher: str, guidance: str) -> None:
        """Refuses a first teacher whose own ``guidance`` is not outside, unless this mode asks nothing of it."""
        unguided, told = guidance == "baked" and self.scale == 1.0, guidance == self.name == "embedded"
        if guidance != "outside" and not unguided and not told:
            raise UserError(
                f"teacher is {teacher}, a student with guidance {guidance}, which cannot be guided by {self.scale} once"
                " more; name its own teacher, or set model.guidance to Baked with scale 1"
            )

    def prepare(self, student: Denoiser) -> None:  # noqa: B027
        """Changes a student's network as this mode needs it, before any training."""


class Outside(GuidanceMode):
    """The student keeps two evaluations a step; each branch is distilled, the null branch by caption dropout.

    Args:
        scale: g at which students are scored and sampled, from 0 to 1000; 1 is no guidance.
        caption_dropout: the share of captions that training replaces by none, from 0 to 1.
    """

    name = "outside"

    def __init__(self, scale: float, caption_dropout: float = 0.1) -> None:
        super().__init__(scale)
        check_number("caption_dropout", caption_dropout, at_least=0, at_most=1)
        self.caption_dropout = caption_dropout

    def target_scale(self, round_index: int, uniform: Tensor) -> float:  # noqa: ARG002
        return 1.0

    @property
    def student_scale(self) -> float:
        return self.scale


class Baked(GuidanceMode):
    """The first round's teacher is guided; its student needs one evaluation a step, and so do all that follow."""

    name = "baked"

    def target_scale(self, round_index: int, uniform: Tensor) -> float:  # noqa: ARG002
        return self.scale if round_index == 0 else 1.0

    @property
    def student_scale(self) -> float:
        return 1.0


class Embedded(GuidanceMode):
    """The student takes g as an input, drawn anew for every clip; one evaluation a step (Meng et al. 2023).

    Args:
        scale: g that students are scored and sampled at, unless another is asked for.
        low: lowest g that is drawn.
        high: highest g that is drawn.
    """

    name = "embedded"

    def __init__(self, scale: float, low: float = 1.0, high: float = 6.0) -> None:
        super().__init__(scale)
        for name, bound in (("low", low), ("high", high)):
            check_number(f"{name} of the guidance scales", bound, at_least=0, at_most=LARGEST_SCALE)
        if not 0 <= low <= scale <= high or low == high:
            raise UserError(
                f"guidance scales are drawn from low={low} to high={high}, but these must be apart, at least 0 and"
                f" have scale={scale} between them"
            )
        self.low, self.high = low, high
        self.range = (low, high)

    def target_scale(self, round_index: int, uniform: Tensor) -> Tensor:  # noqa: ARG002
        return torch.lerp(uniform.new_tensor(self.low), uniform.new_tensor(self.high), uniform)

    @property
    def student_scale(self) -> float:
        return self.scale

    def prepare(self, student: Denoiser) -> None:
        if not student.takes_guidance:
            student.add_guidance_input()
