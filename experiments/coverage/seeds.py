"""Intervals over seeds: of numbers with known parts of variance, and of the scores of made clips."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bsa_lightning.evaluation.scores import crossed_interval, interval
from experiments.coverage.clips import Made, values
from experiments.coverage.tally import Coverage, tally

SIZES = ((2, 1), (3, 1), (5, 1), (1, 5), (2, 2), (2, 5), (3, 2), (3, 5), (5, 2), (5, 5))
"""Training seeds and sampling seeds."""
PARTS = {
    "a": (1, 0, 0), "b": (0, 1, 0), "e": (0, 0, 1), "a = b": (1, 1, 0), "a = e": (1, 0, 1), "b = e": (0, 1, 1),
    "a = b = e": (1, 1, 1), "a = b/20": (0.05, 1, 0), "b = a/20": (1, 0.05, 0), "a = b/600, as the study's FD": (
        0.002, 1, 0.002),
}  # fmt: skip
"""Variances of trainings, of sampling seeds, and of the two together, for means of the numbers of seeds at hand."""


@dataclass(frozen=True)
class Crossed:
    """The crossed interval of T trainings and S sampling seeds, whose numbers have these parts of variance."""

    num_trained: int
    num_sampled: int
    parts: str
    repeats: int = 4000

    def run(self) -> Iterator[Coverage]:
        """One coverage; with one training, or one sampling seed, of the mean over what that one would give again."""
        size = (self.num_trained, self.num_sampled)
        a, b, e = (math.sqrt(part) for part in PARTS[self.parts])
        draws = np.random.default_rng(0)
        found = []
        for _ in range(self.repeats):
            trained = draws.normal(size=(size[0], 1)) * (size[0] > 1)
            sampled = draws.normal(size=(1, size[1])) * (size[1] > 1)
            y = a * trained * math.sqrt(size[0]) + b * sampled * math.sqrt(size[1])
            y = y + e * draws.normal(size=size) * math.sqrt(size[0] * size[1])
            found.append(crossed_interval(y.tolist()))
        yield tally("crossed", f"{size[0]} trainings x {size[1]} samplings, {self.parts}", found, truth=0.0)


@dataclass(frozen=True)
class Scores:
    """Student's t over five sampling seeds, of the scores of made clips: skewed as these are."""

    made: Made
    names: tuple[str, ...]
    num_seeds: int = 5
    repeats: int = 1000

    def run(self) -> Iterator[Coverage]:
        """One coverage a metric."""
        found = values(self.made, self.names, self.repeats * self.num_seeds)
        for name, numbers in found.items():
            groups = np.asarray(numbers).reshape(self.repeats, self.num_seeds).tolist()
            truth = math.fsum(numbers) / len(numbers)
            pairs = [interval(group) for group in groups]
            yield tally(f"Student's t over {self.num_seeds} seeds", f"{name}, {self.made}", pairs, truth=truth)


def sizes_of(parts: str) -> list[tuple[int, int]]:
    """The sizes at which these parts of variance make a case: without what one training or one seed cannot show."""
    a, b, e = PARTS[parts]
    return [(t, s) for t, s in SIZES if (t > 1 or b or e) and (s > 1 or a or e)]
