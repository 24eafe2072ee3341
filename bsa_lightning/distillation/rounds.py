"""The plan of a ladder: its rounds, each with the number of steps of its student and its number of updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.diffusion.schedule import Schedule
from bsa_lightning.diffusion.weighting import Weighting, check_weights

_STRETCHES = 5
"""The number of stretches in the planned updates of an adaptive round, of which the last one is its cooldown."""
_FEWEST = 3
"""The fewest planned updates of an adaptive round: two with the learning rate held, and a cooldown."""


@dataclass(frozen=True)
class Round:
    """One round of a ladder.

    Args:
        index: the index of the round, from 0.
        num_steps: the number of steps of the student.
        updates: the number of optimizer steps that are planned.
        most_updates: the most that an adaptive round is extended to; ``None`` extends it not at all.
    """

    index: int
    num_steps: int
    updates: int
    most_updates: int | None = None

    @property
    def stretch(self) -> int:
        """The updates by which an adaptive round is extended, and of its cooldown: a fifth of ``updates``."""
        return max(1, self.updates // _STRETCHES)

    @property
    def folder(self) -> str:
        """The name of the student's folder, ``<number>-<num_steps>steps``, where rounds are numbered from 1."""
        return f"{self.index + 1}-{self.num_steps}steps"


@dataclass(frozen=True)
class Plan:
    """The rounds of a ladder, each of which divides the number of steps by ``factor``.

    Args:
        start_steps: the number of steps of the first teacher, for example 200; ``end_steps`` times a power of
            ``factor``.
        end_steps: the number of steps of the last student, for example 25; at least 1.
        updates: the number of optimizer steps of each round, at least 1, or a list with a number for each round.
        patience: the number of validations in a row without a lower trajectory error, at least 1, after which the
            cooldown of a round begins early; ``None`` begins none early.
        factor: the number that the steps are divided by from round to round, at least 2; 2 halves the steps, 16 gives
            one long round from 64 to 4.
        off_grid: whether to allow students whose times diffusers' own DDIM rounds by up to half a trained timestep,
            such as 32 or 16 steps of a teacher that was trained on 1000.
        most_updates: the most updates that a round is extended to while its trajectory error falls, above ``updates``,
            or a list with a number for each round; ``None`` extends no round.

    With ``patience`` or ``most_updates``, rounds are adaptive: they compare the trajectory errors of their validations
    clip by clip, and are rolled back to their best weights when the error has risen. Their learning rate is held, and
    falls in a cooldown of a fifth of ``updates``; see :class:`~bsa_lightning.distillation.round_budget.RoundBudget`.

    Raises:
        UserError: if a number is out of its range, or the numbers do not fit together.
    """

    start_steps: int
    end_steps: int
    updates: int | list[int]
    patience: int | None = None
    factor: int = 2
    off_grid: bool = False
    most_updates: int | list[int] | None = None

    def __post_init__(self) -> None:
        check_number("factor", self.factor, whole=True, at_least=2, advice="2 halves the steps from round to round")
        check_number("start_steps", self.start_steps, whole=True, at_least=1)
        check_number("end_steps", self.end_steps, whole=True, at_least=1)
        for updates in self.updates if isinstance(self.updates, list) else [self.updates]:
            check_number("updates", updates, whole=True, at_least=1, advice="every round needs an update")
        budgets = self._of_each_round("updates", self.updates)
        if self.patience is not None:
            check_number("patience", self.patience, whole=True, at_least=1, advice="leave it out to spend all updates")
        if self.is_adaptive and min(budgets) < _FEWEST:
            raise UserError(
                f"a round with patience or most_updates needs {_FEWEST} updates, to hold its learning rate and then"
                f" lower it, but updates is {min(budgets)}; raise it"
            )
        if self.most_updates is not None:
            for updates, most in zip(budgets, self._of_each_round("most_updates", self.most_updates), strict=True):
                advice = f"updates is {updates}, and a round is extended beyond it; leave it out to extend no round"
                check_number("most_updates", most, whole=True, at_least=updates + 1, advice=advice)

    @property
    def is_adaptive(self) -> bool:
        """Whether validations decide how many updates a round takes."""
        return self.patience is not None or self.most_updates is not None

    @property
    def rounds(self) -> tuple[Round, ...]:
        """All rounds, in their order."""
        budgets = self._of_each_round("updates", self.updates)
        most = self.most_updates
        limits = [None] * len(budgets) if most is None else self._of_each_round("most_updates", most)
        return tuple(
            Round(i, self.start_steps // self.factor ** (i + 1), updates, limit)
            for i, (updates, limit) in enumerate(zip(budgets, limits, strict=True))
        )

    def check_schedule(self, schedule: Schedule) -> None:
        """Refuses students that diffusers' own DDIM would sample at other times than they are trained at.

        Args:
            schedule: the noise schedule of the teacher.

        Raises:
            UserError: if there is such a student, or the first teacher takes more steps than the schedule has.
        """
        if self.start_steps > schedule.most_steps:
            check_number("start_steps", self.start_steps, at_most=schedule.most_steps)
        for round_ in self.rounds if not self.off_grid else ():
            if not schedule.has_exact_grid(round_.num_steps):
                raise UserError(
                    f"start_steps is {self.start_steps}, but its student of {round_.num_steps} steps does not divide"
                    " the trained timesteps, so that diffusers would sample it at other times than it is trained"
                    " at; choose another start_steps, or set off_grid to true"
                )

    def check_weighting(
        self, weighting: Weighting, schedule: Schedule, times: Callable[[Round], Tensor] | None = None
    ) -> None:
        """Refuses a weighting that is zero at all times of a round, and warns of one that is zero at some.

        For example, Min-SNR on a schedule without signal at t = 1 is zero at the only time of a one-step student.

        Args:
            weighting: the weighting of the loss.
            schedule: the noise schedule of the teacher.
            times: gives the times that a round is trained at, (n,); ``None`` takes those of the student's sampler.

        Raises:
            UserError: if the weighting is zero at all times of a round.
        """
        for round_ in self.rounds:
            trained = schedule.grid(round_.num_steps)[:-1] if times is None else times(round_)
            check_weights(weighting, schedule, trained, where=f"in the round of {round_.num_steps} steps")

    def _of_each_round(self, name: str, setting: int | list[int]) -> list[int]:
        """Returns a setting that is one number for all rounds, or a list with one for each."""
        rounds = self._num_rounds()
        values = setting if isinstance(setting, list) else [setting] * rounds
        if len(values) != rounds:
            raise UserError(
                f"{name} lists {len(values)} rounds, but {self.start_steps} to {self.end_steps} steps are {rounds};"
                " give one number for each round, or one for all"
            )
        return values

    def _num_rounds(self) -> int:
        steps, rounds = self.start_steps, 0
        while steps > self.end_steps and steps % self.factor == 0:
            steps //= self.factor
            rounds += 1
        if steps != self.end_steps or rounds == 0:
            how, power = ("halved", "two") if self.factor == 2 else (f"divided by {self.factor}", str(self.factor))
            raise UserError(
                f"{self.start_steps} steps cannot be {how} to {self.end_steps}: start_steps must be end_steps times a"
                f" power of {power}, for example {25 * self.factor**3} and 25"
            )
        return rounds
