"""How many updates a round takes, and which of its weights it ends with: decided by the plan, or by validations."""

from __future__ import annotations

from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from bsa_lightning.distillation.clip_errors import Comparison, compare, is_finite
from bsa_lightning.distillation.rounds import Plan, Round
from bsa_lightning.training.ema import Snapshot

_STATE = (
    "_hold_until", "_cooldown_from", "_optimizer_since", "_best", "_best_update", "best_weights", "_fallen",
    "_fallen_update", "_last_fall", "_stale", "_judged", "_kept", "_decisions",
)  # fmt: skip
"""The attributes of a budget that a checkpoint holds."""


class Verdict(NamedTuple):
    """What a validation has decided."""

    is_best: bool
    """Whether the weights are the best of the round so far, to be kept as ``best_weights`` of the budget."""
    is_rolled_back: bool
    """Whether the round goes back to its best weights."""
    numbers: dict[str, float]
    """The numbers to log, by name."""


class RoundBudget:
    """Decides how many updates a round takes, and whether it goes back to its best weights.

    A fixed round takes ``updates`` updates, over which the learning rate falls linearly to zero.

    An adaptive round (``patience`` or ``most_updates`` of the plan) holds the learning rate, and ends with a cooldown,
    a fifth of ``updates`` long, in which it falls linearly to zero. The decay comes last whatever the length of the
    round (Hägele et al. 2024), for two reasons: a decay over the whole round would need its length beforehand, and
    would lower the error by itself, so that every round would seem to want more updates.

    The round is judged at its validations: at those of the trainer, and where it decides. The trajectory errors of the
    clips, of the network that the round would end with, are compared with those of earlier validations of the round, on
    the same clips and noise; a difference counts if the whole 95 % interval of its mean over clips is on one side of
    zero. The error has fallen if it is lower than at the best validation so far, or than where it had last fallen (so
    that several falls that are each too small to count, count together); it has risen if it is higher than at the best.
    Then:

    - The learning rate is held for four fifths of ``updates``, and a fifth longer each time that the error has fallen
      within the last fifth and not risen again, as far as ``most_updates`` allow with the cooldown.
    - After ``patience`` validations in a row at which it had not fallen, the cooldown begins at once.
    - If it has risen when the cooldown begins, the weights of student and average go back to the best first, and the
      optimizer is made anew, as at the start of a round: its moments are those of weights that are given up. If it has
      risen when the cooldown ends, the weights go back, and the round ends.

    Args:
        plan: the plan of the ladder.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.begin(plan.rounds[0])

    def begin(self, round_: Round) -> None:
        """Begins a round: forgets all that was decided in the one before."""
        self.is_adaptive = self._plan.is_adaptive
        self._round = round_
        self._cooldown = round_.stretch if self.is_adaptive else round_.updates
        self._hold_until = round_.updates - self._cooldown
        self._cooldown_from: int | None = None if self.is_adaptive else 0
        self._optimizer_since = 0
        self._best: Tensor | None = None
        self._best_update = 0
        self.best_weights: dict[str, Snapshot] = {}
        self._fallen: Tensor | None = None  # the errors where they had last fallen, or at the first validation
        self._fallen_update = 0
        self._last_fall = ""
        self._stale = 0
        self._judged: int | None = None
        self._kept: int | None = None
        self._decisions: list[str] = []

    @property
    def planned(self) -> int:
        """The number of updates of the round, as decided so far."""
        return (self._hold_until if self._cooldown_from is None else self._cooldown_from) + self._cooldown

    def is_over(self, updates: int) -> bool:
        """Returns whether the round ends after a number of updates."""
        return self._cooldown_from is not None and updates >= self.planned

    def rate(self, step: int) -> float:
        """Returns the factor of the learning rate after a number of updates with the current optimizer."""
        if self._cooldown_from is None:
            return 1.0
        into = max(0, self._optimizer_since + step - self._cooldown_from)
        return max(0.0, 1 - into / self._cooldown)

    def must_validate(self, updates: int) -> bool:
        """Returns whether the round cannot go on without a validation after a number of updates."""
        if not self.is_adaptive or updates == self._judged:
            return False
        if self._cooldown_from is not None:
            return updates == self.planned
        # To tell whether the error falls until the hold ends, that of a fifth before is needed.
        is_before = self._round.most_updates is not None and updates == self._hold_until - self._cooldown
        return is_before or updates >= self._hold_until

    def judge(self, updates: int, errors: Tensor) -> Verdict | None:
        """Decides by a validation; returns ``None`` if the weights were judged before.

        Args:
            updates: the number of updates of the round so far.
            errors: the trajectory errors of all clips, (n,) float64, the same on every rank.
        """
        if updates == self._judged:
            return None
        self._judged = updates
        compared = None if self._best is None else compare(errors, updates, self._best, self._best_update)
        self._look_for_a_fall(updates, errors, compared)
        if is_best := is_finite(errors) and (compared is None or compared.difference < 0):
            self._best, self._best_update = errors, updates
        is_at_end = self.is_over(updates)
        reason = "" if self._cooldown_from is not None else self._why_to_cool_down(updates, compared)
        is_rolled_back = bool(is_at_end or reason) and compared is not None and compared.is_higher
        if is_rolled_back:
            self._say(f"rolled back to the weights after {self._best_update} updates: {compared}")
            self._optimizer_since = updates
        if reason:
            self._cooldown_from = updates
            self._say(f"cooldown from update {updates} to {self.planned}" + ("" if is_rolled_back else f", {reason}"))
        if is_at_end:
            self._kept = self._best_update if is_rolled_back else updates
            self._say(f"ended after {updates} updates" + (f": {compared}" if compared and not is_rolled_back else ""))
        return Verdict(is_best, is_rolled_back, self._numbers(compared, is_rolled_back=is_rolled_back))

    def record(self) -> dict[str, Any]:
        """Returns the limits and decisions of the round, for its provenance; empty for a fixed round."""
        if not self.is_adaptive:
            return {}
        limits = {"most_updates": self._round.most_updates, "patience": self._plan.patience}
        return {"budget": {"updates": self._round.updates, **limits, "kept": self._kept, "decisions": self._decisions}}

    def state_dict(self) -> dict[str, Any]:
        """Returns all that is decided, for a checkpoint."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned in the same round."""
        for name in _STATE:
            setattr(self, name, state_dict[name])

    def _look_for_a_fall(self, updates: int, errors: Tensor, compared: Comparison | None) -> None:
        """Notes whether the error is lower than at the best validation, or than where it had last fallen."""
        if compared is None:
            if is_finite(errors):
                self._fallen, self._fallen_update = errors, updates
            return
        assert self._fallen is not None  # with the first best
        from_last = compare(errors, updates, self._fallen, self._fallen_update)
        fall = next((found for found in (compared, from_last) if found.is_lower), None)
        if fall is None:
            self._stale += 1
        else:
            self._stale, self._last_fall = 0, str(fall)
            self._fallen, self._fallen_update = errors, updates

    def _why_to_cool_down(self, updates: int, compared: Comparison | None) -> str:
        """Returns why the cooldown begins; empty if it does not, where the round may have been extended."""
        most, patience = self._round.most_updates, self._plan.patience
        if patience is not None and self._stale >= patience:
            return f"since the error has not fallen at {self._stale} validations in a row: {compared}"
        if updates < self._hold_until:
            return ""
        if most is None or compared is None:
            return "as planned"
        if compared.is_higher or not self._last_fall or self._fallen_update <= updates - self._cooldown:
            return f"since the error no longer falls: {compared}"
        if updates < most - self._cooldown:
            self._hold_until = min(updates + self._cooldown, most - self._cooldown)
            self._say(f"extended to {self.planned} updates, of at most {most}, since {self._last_fall}")
            return ""
        return f"since most_updates allow no more, though {self._last_fall}"

    def _numbers(self, compared: Comparison | None, *, is_rolled_back: bool) -> dict[str, float]:
        numbers: dict[str, float] = {
            "planned_updates": self.planned,
            "best_update": self._best_update,
            "rolled_back": is_rolled_back,
        }
        if compared is not None:
            change = {"change": compared.difference, "change_low": compared.low, "change_high": compared.high}
            numbers |= {f"trajectory_{name}": number for name, number in change.items()}
        return {name: float(number) for name, number in numbers.items()}

    def _say(self, decision: str) -> None:
        self._decisions.append(decision)
        rank_zero_info(f"round {self._round.index + 1}: {decision}")
