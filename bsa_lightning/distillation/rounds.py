"""The plan of a ladder: which round distils to how many steps, with how many updates. Data only, validated."""

from __future__ import annotations

from dataclasses import dataclass

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.diffusion.schedule import Schedule, trailing_grid
from bsa_lightning.diffusion.weighting import Weighting, check_weights


@dataclass(frozen=True)
class Round:
    """One round: the student learns to sample in ``num_steps`` what its teacher samples in ``factor`` times as many."""

    index: int
    num_steps: int
    updates: int

    @property
    def folder(self) -> str:
        """Name of the student's folder, ``<index>-<num_steps>steps``; rounds count from 1 there, as people do."""
        return f"{self.index + 1}-{self.num_steps}steps"


@dataclass(frozen=True)
class Plan:
    """Halve the steps round by round, or divide them by another factor.

    Args:
        start_steps: of the first teacher, for example 200.
        end_steps: of the last student, for example 25; at least 1.
        updates: optimizer steps a round (at most, with ``patience``), at least 1; a list gives each round its own.
        patience: end a round early after this many validations (at least 1) without a lower distillation error; None
            never does.
        factor: of the steps, from a round to the next, at least 2; 16 for one long jump from 64 to 4.
        off_grid: allow rounds whose steps diffusers' own DDIM walks up to half a trained timestep off, such as 32 or 16
            steps of a teacher that was trained on 1000.
    """

    start_steps: int
    end_steps: int
    updates: int | list[int]
    patience: int | None = None
    factor: int = 2
    off_grid: bool = False

    def __post_init__(self) -> None:
        check_number("factor", self.factor, whole=True, at_least=2, advice="2 halves the steps from round to round")
        check_number("start_steps", self.start_steps, whole=True, at_least=1)
        check_number("end_steps", self.end_steps, whole=True, at_least=1)
        for updates in self.updates if isinstance(self.updates, list) else [self.updates]:
            check_number("updates", updates, whole=True, at_least=1, advice="every round needs an update")
        budgets = self._budgets()
        if len(budgets) != (rounds := self._num_rounds()):
            raise UserError(
                f"updates lists {len(budgets)} rounds, but {self.start_steps} to {self.end_steps} steps are {rounds};"
                " give one number a round, or one for all"
            )
        if self.patience is not None:
            check_number("patience", self.patience, whole=True, at_least=1, advice="leave it out to spend all updates")

    @property
    def rounds(self) -> tuple[Round, ...]:
        """All rounds in order."""
        return tuple(
            Round(i, self.start_steps // self.factor ** (i + 1), updates) for i, updates in enumerate(self._budgets())
        )

    def check_schedule(self, schedule: Schedule) -> None:
        """Refuses students that diffusers' own sampler would put on another grid than they are trained on.

        Raises:
            UserError: if there is such a student, or the first teacher takes more steps than the schedule has.
        """
        if self.start_steps > schedule.most_steps:
            check_number("start_steps", self.start_steps, at_most=schedule.most_steps)
        for round_ in self.rounds if not self.off_grid else ():
            if not schedule.has_exact_grid(round_.num_steps):
                raise UserError(
                    f"a student of {round_.num_steps} steps does not divide the teacher's trained timesteps, so that"
                    f" diffusers would sample it off its grid; choose another start_steps than {self.start_steps}, or"
                    " allow it with off_grid"
                )

    def check_weighting(self, weighting: Weighting, schedule: Schedule) -> None:
        """Refuses a weighting under which some round would train nothing; warns where it leaves out some of its times.

        Min-SNR on a schedule without any signal at t = 1 gives the one-step round a weight of zero, for example.

        Raises:
            UserError: naming the weighting and the round.
        """
        for round_ in self.rounds:
            times = trailing_grid(round_.num_steps)[:-1]
            check_weights(weighting, schedule, times, where=f"in the round of {round_.num_steps} steps")

    def _budgets(self) -> list[int]:
        return [self.updates] * self._num_rounds() if isinstance(self.updates, int) else self.updates

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
