"""The methods of distillation: which times are drawn, and whose two predictions make the target of one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.losses import Predictor, halving_times, segment_times
from bsa_lightning.diffusion.schedule import Schedule
from bsa_lightning.distillation.rounds import Plan, Round
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.predictor import predictor


class Predictors(NamedTuple):
    """The predictors of a loss, with conditioning and guidance bound."""

    teacher: Predictor
    """The predictor of the first step of the target."""
    second: Predictor
    """The predictor of the further steps of the target."""
    student: Predictor
    """The predictor of the step that is trained."""


class Method(ABC):
    """The base class of methods: which steps the target of the student's step from time t to time s is made of.

    A first predictor takes the first of these steps, a second predictor the further ones. Inherit from this class for a
    method of your own; the module knows no method by name.
    """

    name: str
    """The name in provenance files and scores; of lower-case letters, digits and ``-``."""
    keeps_teacher: bool = False
    """Whether all rounds have the first teacher at its full steps; else each student is the next round's teacher."""

    @abstractmethod
    def step_times(self, uniform: Tensor, *, schedule: Schedule, num_steps: int, factor: int) -> list[Tensor]:
        """The times of the steps; see :class:`~bsa_lightning.diffusion.losses.StepTimes`."""

    @abstractmethod
    def target_predictors(self, *, teacher: Predictor, average: Predictor) -> tuple[Predictor, Predictor]:
        """Returns the predictor of the first step of the target, and that of the further ones.

        Args:
            teacher: that of the teacher of the round, guided.
            average: that of the moving average of the student; of the student itself if there is no average.
        """

    def num_predictions(self, factor: int) -> int:
        """Returns the number of predictions that make a target, where the teacher takes ``factor`` steps in one."""
        return factor

    def goes_to_clean(self, round_: Round) -> bool:  # noqa: ARG002
        """Returns whether the student of a round goes from every time of the teacher's grid to t = 0 in one step."""
        return False

    def check(self, *, ema_decay: float | None) -> None:  # noqa: B027
        """Refuses settings that the method cannot use.

        Args:
            ema_decay: the decay of the moving average of the student; ``None`` is no average.

        Raises:
            UserError: if there is such a setting.
        """

    def factor(self, plan: Plan, round_: Round) -> int:
        """Returns the number of steps that the teacher of a round takes in one step of its student."""
        return plan.start_steps // round_.num_steps if self.keeps_teacher else plan.factor

    def times(self, schedule: Schedule, plan: Plan, round_: Round) -> Tensor:
        """Returns all times t that steps of the student start from in the training of a round, (n,) float64."""
        factor, num_steps = self.factor(plan, round_), round_.num_steps
        uniform = (torch.arange(factor * num_steps, dtype=torch.float64) + 0.5) / (factor * num_steps)
        return self.step_times(uniform, schedule=schedule, num_steps=num_steps, factor=factor)[0].unique().flip(0)

    def predictors(
        self,
        teacher: Denoiser,
        average: Denoiser,
        student: Denoiser,
        *,
        conditioning: Conditioning,
        null: Conditioning,
        scale: float | Tensor,
    ) -> Predictors:
        """Returns the two predictors of the target, and the student's, with conditioning and guidance bound.

        Args:
            teacher: the teacher of the round.
            average: the moving average of the student; the student itself if there is no average.
            student: the student.
            conditioning: the conditioning of the batch.
            null: the conditioning of the empty caption, one clip.
            scale: the guidance scale of the teacher, a number or (batch,).
        """

        def own(network: Denoiser) -> Predictor:
            # A student has the guidance of its teacher in its weights, or takes the scale as an input of its network.
            return predictor(network, conditioning, guidance_scale=scale if network.takes_guidance else 1.0)

        guided = predictor(teacher, conditioning, null=null, guidance_scale=scale)
        return Predictors(*self.target_predictors(teacher=guided, average=own(average)), own(student))


class Progressive(Method):
    """Progressive distillation (Salimans and Ho 2022; Algorithm 1 of Liu et al.): both predictors are the teacher.

    Times are drawn where the student's sampler steps. The student of a round is the teacher of the next.
    """

    name = "progressive"

    def step_times(self, uniform: Tensor, *, schedule: Schedule, num_steps: int, factor: int) -> list[Tensor]:
        return halving_times(uniform, schedule=schedule, num_steps=num_steps, factor=factor)

    def target_predictors(self, *, teacher: Predictor, average: Predictor) -> tuple[Predictor, Predictor]:  # noqa: ARG002
        return teacher, teacher


class SegmentedConsistency(Method):
    """Consistency distillation in N segments: the teacher's step, then one of the student's own moving average.

    The N steps of the student's sampler are the segments (phased consistency models, Wang et al. 2024; TRACT, Berthelot
    et al. 2023). From every time of the teacher's grid in a segment, the student learns to go to the segment's end. A
    plan that ends at one step ends in a consistency model (Song et al. 2023; ConsistencyTTA, Bai et al. 2024), which
    :class:`~bsa_lightning.generation.samplers.Renoising` samples in further numbers of steps.

    The teacher of all rounds is the first one, at ``start_steps`` of the plan; a round has fewer segments than the one
    before by the plan's ``factor``, and its student starts as that round's average. With ``factor`` of ``start_steps``
    / ``end_steps`` there is one round. It needs ``ema_decay``. Its target moves with the student, so that only the
    trajectory error says whether more updates help: a plan with ``patience`` or ``most_updates`` is judged by it.
    """

    name = "segmented-consistency"
    keeps_teacher = True

    def step_times(self, uniform: Tensor, *, schedule: Schedule, num_steps: int, factor: int) -> list[Tensor]:
        return segment_times(uniform, schedule=schedule, num_steps=num_steps, factor=factor)

    def target_predictors(self, *, teacher: Predictor, average: Predictor) -> tuple[Predictor, Predictor]:
        return teacher, average

    def num_predictions(self, factor: int) -> int:  # noqa: ARG002
        return 2

    def goes_to_clean(self, round_: Round) -> bool:
        return round_.num_steps == 1

    def check(self, *, ema_decay: float | None) -> None:
        if ema_decay is None:
            raise UserError(
                "ema_decay is None, but the target of SegmentedConsistency takes its second step with the moving"
                " average of the student; set model.ema_decay, such as 0.95"
            )
