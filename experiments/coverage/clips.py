"""Made clips of two systems, whose true difference is known from many draws, and paired differences of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.metrics.divergence import clap_score
from bsa_lightning.evaluation.paired_differences import paired_difference, resample
from bsa_lightning.evaluation.row_store import ClipRows
from experiments.coverage.tally import Coverage, tally

NUM_CLASSES = 50


class Drawn(NamedTuple):
    """Clips of two systems from the same captions, and what they are compared with."""

    reference: ClipRows
    captions: Tensor
    first: ClipRows
    second: ClipRows


@dataclass(frozen=True)
class Made:
    """Clips whose rows have a part of their caption, one that systems share, and one of the system's own.

    Args:
        num_clips: generated clips.
        num_rows: rows of a clip.
        num_features: numbers of a row, whose standard deviations fall as one over the square root of their place.
        apart: whether the second system is louder, off by a constant and surer of its classes; else the two are alike.
        skew: standard deviation of the logarithm of a clip's level.
    """

    num_clips: int
    num_rows: int
    num_features: int
    apart: bool = False
    skew: float = 0.0

    def __str__(self) -> str:
        text = f"{self.num_clips} clips of {self.num_rows} x {self.num_features}, {'apart' if self.apart else 'alike'}"
        return text + (f", levels skewed by {self.skew:g}" if self.skew else "")

    def draw(self, seed: int) -> Drawn:
        """Another set of captions and of noise. The reference keeps its rows; its clips have the captions' classes."""
        generator = torch.Generator().manual_seed(seed)
        content = torch.randn(self.num_clips, NUM_CLASSES, generator=generator, dtype=torch.float64)
        captions, systems = self._rows(generator, systems=2)
        logits = [2 * content + torch.randn(content.shape, generator=generator).double() for _ in range(3)]
        if self.apart:
            systems[1] = 1.2 * systems[1] + 0.3 * self._spectrum()
            logits[2] = 1.3 * logits[2]
        _, (still,) = self._rows(torch.Generator().manual_seed(2**40), systems=1)
        return Drawn(self._clips(still, logits[0]), captions, *map(self._clips, systems, logits[1:]))

    def measures(self, drawn: Drawn) -> dict[str, Callable[[ClipRows], float]]:
        """What a report measures, by short names.

        ``error`` is the mean of one number a clip, as trajectory error is, whose logarithm has a deviation of 0.6.
        """
        found = Measures(LogMelStatistics(), drawn.reference).by_name(drawn.first)
        short = {"fd": "fd_logmel", "kad": "kad_logmel", "kl": "kl_logmel", "is": "is_logmel"}
        of_clips: dict[str, Callable[[ClipRows], float]] = {"clap": partial(_clap, drawn.captions), "error": _error}
        return {name: found[column] for name, column in short.items()} | of_clips

    def _spectrum(self) -> Tensor:
        return torch.arange(1, self.num_features + 1, dtype=torch.float64) ** -0.5

    def _rows(self, generator: torch.Generator, *, systems: int) -> tuple[Tensor, list[Tensor]]:
        """The part of each caption (clips, d), and the rows (clips, rows, d) of each system."""
        n, k, d = self.num_clips, self.num_rows, self.num_features
        level = (self.skew * torch.randn(n, 1, 1, generator=generator, dtype=torch.float64)).exp()
        captions = torch.randn(n, 1, d, generator=generator, dtype=torch.float64)
        shared = torch.randn(n, k, d, generator=generator, dtype=torch.float64)
        own = [torch.randn(n, k, d, generator=generator, dtype=torch.float64) for _ in range(systems)]
        spectrum = self._spectrum()
        return captions[:, 0], [level * (0.6 * captions + 0.5 * shared + 0.6 * noise) * spectrum for noise in own]

    def _clips(self, rows: Tensor, logits: Tensor) -> ClipRows:
        counts = torch.full((self.num_clips,), self.num_rows)
        return ClipRows(torch.arange(self.num_clips), counts, rows.flatten(0, 1), logits)


def _clap(captions: Tensor, clips: ClipRows) -> float:
    return float(clap_score(clips.rows, captions[clips.clip_of_rows()]).mean())


def _error(clips: ClipRows) -> float:
    assert clips.logits is not None
    return float((0.27 * clips.logits[:, 0]).exp().mean())


def values(made: Made, names: tuple[str, ...], repeats: int) -> dict[str, list[float]]:
    """Each metric of the first system, draw by draw."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(repeats):
        drawn = made.draw(seed)
        measures = made.measures(drawn)
        for name in names:
            found[name].append(measures[name](drawn.first))
    return found


@dataclass(frozen=True)
class Paired:
    """The paired difference over clips of two systems, in several metrics.

    Args:
        made: the clips.
        names: of the metrics.
        repeats: with an interval each; the true difference and its spread are of four times as many draws more.
        num_resamples: halves of the clips for each interval; a report draws 100.
    """

    made: Made
    names: tuple[str, ...]
    repeats: int = 200
    num_resamples: int = 100

    def run(self) -> Iterator[Coverage]:
        """One coverage a metric."""
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in self.names}
        further: dict[str, list[float]] = {name: [] for name in self.names}
        for seed in range(5 * self.repeats):
            drawn = self.made.draw(seed)
            measures = self.made.measures(drawn)
            for name in self.names:
                measure = measures[name]
                if seed < self.repeats:
                    difference = paired_difference(
                        *(
                            resample(measure, rows, num_resamples=self.num_resamples)
                            for rows in (drawn.first, drawn.second)
                        )
                    )
                    found[name].append((difference.difference, difference.high - difference.difference))
                else:
                    further[name].append(measure(drawn.first) - measure(drawn.second))
        for name, pairs in found.items():
            truth, deviation = _moments([mean for mean, _ in pairs] + further[name])
            yield tally("paired over clips", f"{name}, {self.made}", pairs, truth=truth, deviation=deviation)


def _moments(numbers: list[float]) -> tuple[float, float]:
    mean = math.fsum(numbers) / len(numbers)
    return mean, math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))
