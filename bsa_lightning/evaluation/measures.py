"""All that one embedding pass measures: distances of the rows, class scores of the logits, captions beside sound."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.divergence import inception_score, kl_divergence
from bsa_lightning.evaluation.embeddings import Embedding, LogMelStatistics
from bsa_lightning.evaluation.frechet import frechet_distance_of_rows
from bsa_lightning.evaluation.infinite import at_infinity
from bsa_lightning.evaluation.kernel import KernelDistance, NoValueError
from bsa_lightning.evaluation.row_store import ClipRows

_log = logging.getLogger(__name__)

MIN_CLIPS, MIN_ROWS = 10, 50
"""Fewer clips, or fewer rows of all of them, say nothing about the distribution of a learnt embedding."""


def hopeless(embedding: Embedding, *, num_clips: int, num_rows: int) -> str:
    """The sentence about a side with too few clips or rows; empty where there are enough."""
    if embedding.metric is None or (num_clips >= MIN_CLIPS and num_rows >= MIN_ROWS):
        return ""
    return (
        f"{embedding.metric} is of {num_clips} clips ({num_rows} rows), which say nothing about a distribution;"
        f" score at least {MIN_CLIPS} clips and {MIN_ROWS} rows"
    )


def refuse_hopeless(embedding: Embedding, *, num_clips: int, num_rows: int) -> None:
    """Refuses too few clips or rows, except of log-mel statistics, which smoke tests take from a handful.

    Raises:
        UserError: saying how many there are and must be.
    """
    text = hopeless(embedding, num_clips=num_clips, num_rows=num_rows)
    if text and not isinstance(embedding, LogMelStatistics):
        raise UserError(text)


def refuse_repeated(embeddings: Sequence[Embedding]) -> None:
    """Refuses embeddings whose columns would have the same names.

    Raises:
        UserError: naming the first of them.
    """
    names = [embedding.name for embedding in embeddings]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"embeddings names {repeated[0]} {names.count(repeated[0])} times; name each once")


@runtime_checkable
class ReadsCaptions(Protocol):
    """An embedding that judges sound beside its caption: CLAP by their likeness, the listener by right answers."""

    caption_metric: str
    """Column of ``scores.csv`` that the mean of all judgements is written to."""

    def text(self, captions: Sequence[str]) -> Tensor:
        """What sound is judged by (captions, numbers of a caption)."""

    def judge(self, rows: Tensor, captions: Tensor) -> Tensor:
        """The value (n,) of each row (n, num_features) beside its own caption (n, numbers of a caption).

        Raises:
            NoValueError: if a caption is not one that sound can be judged by.
        """


class Measures:
    """What one embedding says about generated clips, beside a reference that stays.

    Args:
        embedding: whose rows are compared; names the columns.
        reference: rows of real sound.
        captions: what the embedding's ``text`` made of the captions (clips, ...), by clip number; ``None`` if captions
            are not known, or not read by the embedding.
        at_infinity: also extrapolate the Frechet distance to infinitely many clips.
    """

    def __init__(
        self, embedding: Embedding, reference: ClipRows, *, captions: Tensor | None = None, at_infinity: bool = False
    ) -> None:
        self.embedding, self.reference = embedding, reference
        self.captions = captions
        self.at_infinity = at_infinity
        self.left_out: dict[str, str] = {}
        """Measures that had no value, and why."""

    def __call__(self, generated: ClipRows, *, paired: bool = True) -> dict[str, float]:
        """Columns of ``scores.csv``. ``paired``: a clip has the number of the reference that it shares a caption with.

        A measure that has no value for these clips is left out, and told; ``left_out`` says why.

        Raises:
            UserError: if the clips are too few.
        """
        for side in (generated, self.reference):
            refuse_hopeless(self.embedding, num_clips=len(side), num_rows=len(side.rows))
        found = self._values(self.by_name(generated, paired=paired), generated)
        if self.at_infinity and self.embedding.metric is not None:
            line = at_infinity(lambda at: self.frechet(generated.at(at)), num_clips=len(generated))
            found[f"{self.embedding.metric}_inf"] = line.distance
            found[f"{self.embedding.metric}_inf_r2"] = line.r_squared
        return found

    def by_name(self, generated: ClipRows, *, paired: bool = True) -> dict[str, Callable[[ClipRows], float]]:
        """The measures that such clips allow, by column: to be asked about some of the clips too."""
        name = self.embedding.name
        found = self._distances()
        if generated.logits is not None:
            if paired:
                found[f"kl_{name}"] = self.divergence
            found[f"is_{name}"] = self.inception
        has_captions = self.captions is not None
        # An embedding that gives nothing else is told to be without captions.
        if isinstance(self.embedding, ReadsCaptions) and (has_captions or self.embedding.metric is None):
            found[self.embedding.caption_metric] = self.caption_score
        return found

    def distances(self, generated: ClipRows) -> dict[str, float]:
        """The Frechet and the kernel distance alone."""
        return self._values(self._distances(), generated)

    def _distances(self) -> dict[str, Callable[[ClipRows], float]]:
        if self.embedding.metric is None:
            return {}
        return {self.embedding.metric: self.frechet, f"kad_{self.embedding.name}": self.kernel}

    def _values(self, measures: Mapping[str, Callable[[ClipRows], float]], generated: ClipRows) -> dict[str, float]:
        """What each measure says, but for those that say nothing."""
        found = {}
        for name, measure in measures.items():
            try:
                found[name] = finite(name, measure(generated))
            except NoValueError as error:
                if name not in self.left_out:
                    _log.warning("%s is left out: %s", name, error)
                self.left_out[name] = str(error)
        return found

    def frechet(self, generated: ClipRows) -> float:
        """The Frechet distance."""
        return float(frechet_distance_of_rows(self.reference.rows, generated.rows))

    def kernel(self, generated: ClipRows) -> float:
        """The kernel distance, with the reference's bandwidth."""
        return float(self._kernel(generated.rows))

    def divergence(self, generated: ClipRows) -> float:
        """The mean divergence of a classifier's probabilities from those of the same clips of the reference."""
        reference = self.reference.of(generated.clips)
        if reference.logits is None or generated.logits is None:
            raise UserError(f"{self.embedding.name} gave no logits, so clips have no classes; use a classifier")
        return float(kl_divergence(reference.logits, generated.logits))

    def inception(self, generated: ClipRows) -> float:
        """The inception score of a classifier's logits."""
        assert generated.logits is not None
        return float(inception_score(generated.logits))

    def caption_score(self, generated: ClipRows) -> float:
        """The mean of what the embedding says of clips beside their captions."""
        assert isinstance(self.embedding, ReadsCaptions)
        if self.captions is None:
            raise NoValueError(f"{self.embedding.caption_metric} compares sound with captions; name a file of captions")
        of_rows = self.captions[generated.clips.repeat_interleave(generated.counts)]
        return float(self.embedding.judge(generated.rows, of_rows).mean())

    @functools.cached_property
    def _kernel(self) -> KernelDistance:
        return KernelDistance(self.reference.rows)


def finite(name: str, value: float) -> float:
    """The value of a measure.

    Raises:
        NoValueError: if it is no finite number.
    """
    if not math.isfinite(value):
        raise NoValueError(f"{name} is {value}; listen to the samples, and score more clips")
    return value
