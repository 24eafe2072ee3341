"""The rule by which undistilled models are a student's rivals, and the choice of the best rival; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

Candidate = TypeVar("Candidate")


class SamplingCost(Protocol):
    """A system with a cost of sampling one clip."""

    @property
    def num_steps(self) -> int:
        """The number of steps of the sampler."""

    @property
    def nfe(self) -> int:
        """The number of network evaluations, which are two a step with guidance outside of the network."""


def is_comparable(student: SamplingCost, rival: SamplingCost) -> bool:
    """Returns whether a rival takes as many steps as a student, or as many network evaluations."""
    return rival.num_steps == student.num_steps or rival.nfe == student.nfe


def best_of(candidates: Iterable[Candidate], value: Callable[[Candidate], float]) -> Candidate | None:
    """Returns the candidate with the smallest value, or ``None`` if there is no candidate.

    Values are compared to three significant digits, and the first of equal ones wins: which of two systems that hardly
    differ is the best must not depend on the last bits of a number.

    Args:
        candidates: the systems to choose from.
        value: gives the finite number that a candidate is judged by.
    """
    return min(candidates, key=lambda candidate: float(f"{value(candidate):.3g}"), default=None)
