"""The methods that are compared, as data: arms, and the updates for which they take equally many evaluations.

An arm is a way from 16 guided steps to a student of 4, 2 or 1. For each of these, all arms take as many network
evaluations a clip as halving does until it is there, where a student's update counts three (a forward pass, and a
backward pass of two) and a guided teacher's step two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from experiments.study.run import TUNING_SEED, Run, validated
from experiments.weightings.grid import weighting_options

CONFIG = "experiments/methods/methods.yaml"
START = 16
TARGETS = (4, 2, 1)
RATES = ("1e-5", "3e-5", "1e-4")
RATES_TO_ONE = (*RATES, "3e-4")
"""Of the jumps straight to one step, of which the best of the others was the highest."""
UPDATES = 240
"""Of each round of halving."""
_STUDENT = 3
_GUIDED = 2


def evaluations_of_halving(num_steps: int) -> int:
    """Evaluations a clip until there is a student of so many steps; the first teacher alone is guided."""
    rounds = (START // num_steps).bit_length() - 1
    return UPDATES * (2 * _GUIDED + _STUDENT) + (rounds - 1) * UPDATES * (2 + _STUDENT)


def updates_of_jump(num_steps: int) -> int:
    """Updates of one round in which the teacher takes all its steps guided."""
    return round(evaluations_of_halving(num_steps) / (START // num_steps * _GUIDED + _STUDENT))


def updates_of_segments(num_steps: int) -> int:
    """Updates of consistency distillation straight to so many segments: a guided step, one of the average."""
    return round(evaluations_of_halving(num_steps) / (_GUIDED + 1 + _STUDENT))


@dataclass(frozen=True)
class Arm:
    """A method and a plan.

    Args:
        name: of its runs.
        method: the class.
        end_steps: the steps of the last student.
        factor: by which each round divides the steps.
        updates: of each round.
        further: words of the command line beyond these.
    """

    name: str
    method: str
    end_steps: int
    factor: int
    updates: tuple[int, ...]
    further: tuple[str, ...] = ()

    def options(self, teacher: str) -> tuple[str, ...]:
        """The words of the command line."""
        plan = {"start_steps": START, "end_steps": self.end_steps, "factor": self.factor}
        plan_words = [word for name, value in plan.items() for word in (f"--model.plan.{name}", str(value))]
        return (
            *("--config", CONFIG, "--model.teacher", teacher, *weighting_options("bsa")),
            *("--model.method", self.method, *plan_words),
            *("--model.plan.updates", f"[{','.join(map(str, self.updates))}]", *validated(math.gcd(*self.updates))),
            *self.further,
        )


def arms() -> Iterator[Arm]:
    """Halving and segments that halve on the way to one step, and for each number of steps a jump straight there."""
    yield Arm("halving", "Progressive", 1, 2, (UPDATES,) * 4)
    per_round = _GUIDED + 1 + _STUDENT
    reached = [evaluations_of_halving(num_steps) // per_round for num_steps in (8, *TARGETS)]
    budgets = tuple(now - before for now, before in zip(reached, [0, *reached[:-1]], strict=True))
    yield Arm("segments", "SegmentedConsistency", 1, 2, budgets)
    for num_steps in TARGETS:
        factor = START // num_steps
        yield Arm(f"jump-{num_steps}", "Progressive", num_steps, factor, (updates_of_jump(num_steps),))
        further = ("--scoring.renoising_steps", "[2,4]") if num_steps == 1 else ()
        segments = (updates_of_segments(num_steps),)
        yield Arm(f"segments-{num_steps}", "SegmentedConsistency", num_steps, factor, segments, further)


TEACHERS = {"methods": "tiny", "flow-methods": "tiny-flow"}
"""The parts of the study, each with its teacher."""


def runs(part: str) -> list[Run]:
    """All arms, three training seeds each, at the rate that was best for the arm on the held-out seed."""
    return [_run(part, arm, arm.name, seed, tuned_as=arm.name) for seed in range(3) for arm in arms()]


def tuning(part: str) -> list[Run]:
    """Each arm at each rate, on the held-out seed; their validations decide."""
    return [
        _run(f"{part}-rates", arm, f"{arm.name}-{rate}", TUNING_SEED, "--model.optimizer.init_args.lr", rate)
        for arm in arms()
        for rate in (RATES_TO_ONE if arm.factor == START else RATES)
    ]


def _run(part: str, arm: Arm, setting: str, seed: int, *words: str, tuned_as: str | None = None) -> Run:
    rates = part.removesuffix("-rates") + "-rates"
    options = (*arm.options(TEACHERS[part.removesuffix("-rates")]), *words)
    num_rounds = len(arm.updates)
    return Run(part, setting, seed, options, tuned_as, scored=tuned_as is not None, rates=rates, num_rounds=num_rounds)
