"""The modes of guidance: where classifier-free guidance goes when a guided teacher is distilled."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.sampling_settings import LARGEST_SCALE, SamplingSettings


class GuidanceMode(ABC):
    """The way in which the guidance scale g enters the rounds of a ladder.

    Args:
        scale: the guidance scale g in uncond + g (cond - uncond), from 0 to 1000; 1 is no guidance. Students are
            compared with the first teacher at this scale.

    Raises:
        UserError: if ``scale`` is out of its range.
    """

    name: str
    """The name of the mode in provenance files and scores."""
    caption_dropout: float = 0.0
    """The share of captions that training replaces by the empty caption, so that a student learns its null branch."""
    range: tuple[float, float] | None = None
    """The lowest and the highest g that a student is trained for; ``None`` if it is trained for one g."""

    def __init__(self, scale: float) -> None:
        check_number(
            "guidance scale", scale, at_least=0, at_most=LARGEST_SCALE, advice="1 is no guidance, Tango uses 3"
        )
        self.scale = scale

    @abstractmethod
    def target_scale(self, round_index: int, uniform: Tensor) -> float | Tensor:
        """Returns the guidance scale of the teacher whose steps are the target of a round, a number or (batch,).

        Args:
            round_index: the index of the round, from 0.
            uniform: the draws of this batch, (batch,) in [0, 1), for a mode that draws a scale for each clip.
        """

    @property
    @abstractmethod
    def student_scale(self) -> float:
        """The guidance scale that ``predictor`` is given to sample a finished student."""

    def check_teacher(self, teacher: str, own: SamplingSettings) -> None:
        """Refuses a first teacher that is a student itself, and that this mode would have to guide once more.

        Args:
            teacher: the name of the teacher, for the message.
            own: how the teacher is sampled, "outside" for an undistilled model.

        Raises:
            UserError: if the teacher cannot be guided at this scale.
        """
        lowest, highest = own.guidance_range or (0, LARGEST_SCALE)
        low, high = self.range or (self.scale, self.scale)
        takes_scale = own.guidance == self.name == "embedded" and lowest <= low and high <= highest
        if own.guidance == "outside" or takes_scale or (own.guidance == "baked" and low == high == 1.0):
            return
        scales = f"{self.scale:g}" if low == high else f"scales from {low:g} to {high:g}"
        if own.guidance == "baked":
            told, advice = "a student with guidance baked in", "Baked with scale 1"
        else:
            told = f"a student with guidance embedded for scales from {lowest:g} to {highest:g}"
            advice = "Embedded with low and high within these"
        raise UserError(
            f"teacher is {teacher}, {told}, which cannot be guided by {scales} in the mode {self.name}; name its own"
            f" teacher, or set model.guidance to {advice}"
        )

    def prepare(self, student: Denoiser) -> None:  # noqa: B027
        """Changes the network of a student in place as this mode needs it, before any training."""


class Outside(GuidanceMode):
    """Guidance outside of the student, which needs two network evaluations a step, as its teacher does.

    Both branches are distilled without guidance, the null branch by caption dropout.

    Args:
        scale: the guidance scale at which students are scored and sampled, from 0 to 1000; 1 is no guidance.
        caption_dropout: the share of captions that training replaces by the empty caption, from 0 to 1.

    Raises:
        UserError: if a setting is out of its range.
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
    """Guidance in the weights of the student, which needs one network evaluation a step.

    The teacher of the first round is guided; the following teachers are students, and have the guidance in their
    weights.

    Args:
        scale: the guidance scale of the first round's teacher, from 0 to 1000; 1 is no guidance.
    """

    name = "baked"

    def target_scale(self, round_index: int, uniform: Tensor) -> float:  # noqa: ARG002
        return self.scale if round_index == 0 else 1.0

    @property
    def student_scale(self) -> float:
        return 1.0


class Embedded(GuidanceMode):
    """Guidance scale as an input of the student, which needs one network evaluation a step (Meng et al. 2023).

    In training, the scale is drawn uniformly from [low, high) for every clip.

    Args:
        scale: the guidance scale at which students are scored, and sampled unless another is asked for, from ``low`` to
            ``high``.
        low: the lowest guidance scale of the training, from 0 to 1000.
        high: the highest guidance scale of the training, from 0 to 1000, above ``low``.

    Raises:
        UserError: if a setting is out of its range.
    """

    name = "embedded"

    def __init__(self, scale: float, low: float = 1.0, high: float = 6.0) -> None:
        super().__init__(scale)
        for name, bound in (("low", low), ("high", high)):
            check_number(f"{name} of the guidance scales", bound, at_least=0, at_most=LARGEST_SCALE)
        if not 0 <= low <= scale <= high or low == high:
            raise UserError(
                f"guidance scales are drawn from low={low} to high={high}, but low must be below high and"
                f" scale={scale} between them; change one of the three"
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
