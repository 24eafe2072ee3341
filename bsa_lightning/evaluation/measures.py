"""All that one embedding pass measures: distances of the rows, class scores of the logits, captions beside sound."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.evaluation.metrics.divergence import inception_score, kl_divergence, kl_divergence_sigmoid
from bsa_lightning.evaluation.metrics.frechet import frechet_distance_of_rows
from bsa_lightning.evaluation.metrics.frechet_at_infinity import at_infinity, refuse_short
from bsa_lightning.evaluation.metrics.kernel import KernelDistance, NoValueError, as_kadtk
from bsa_lightning.evaluation.row_store import ClipRows

_log = logging.getLogger(__name__)

MIN_CLIPS, MIN_ROWS = 10, 50
"""Fewer clips, or fewer rows of all of them, say nothing about the distribution of a learnt embedding."""


def expected_rows(embedding: Embedding, lengths: Iterable[tuple[int, int]]) -> int | None:
    """Returns how many rows clips of these lengths will give, or ``None`` if that shows only when they are embedded.

    Args:
        embedding: the embedding of the clips.
        lengths: the number of samples of each clip, and its sample rate in Hz.
    """
    heard = [
        embedding.reading.num_samples(samples, rate=rate, sample_rate=embedding.sample_rate)
        for samples, rate in lengths
    ]
    rows = [embedding.num_rows(samples) for samples in heard]
    return None if None in rows else sum(row or 0 for row in rows)


def too_few_reason(*, num_clips: int, num_rows: int | None, side: str = "") -> str:
    """Returns why clips are too few for distances of distributions and inception scores; empty if they are enough.

    Args:
        num_clips: the number of clips.
        num_rows: the number of their rows; ``None`` where it is not known yet, and taken for enough.
        side: "reference" or "generated", for the sentence; empty where both have that many.
    """
    if num_clips >= MIN_CLIPS and (num_rows is None or num_rows >= MIN_ROWS):
        return ""
    clips = f"{num_clips} {side} clips" if side else f"{num_clips} clips"
    counted = "" if num_rows is None else f" ({num_rows} rows)"
    return f"{clips}{counted} say nothing about a distribution; score at least {MIN_CLIPS} clips and {MIN_ROWS} rows"


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


def needs_many(embedding: Embedding, *, paired: bool, captions: bool) -> bool:
    """Whether an embedding measures nothing of few clips: distances of distributions alone, and no mean over clips.

    Args:
        embedding: whose measures they are.
        paired: whether generated clips have recordings of the same captions.
        captions: whether their captions are known.
    """
    has_mean = (paired and embedding.is_classifier) or (captions and isinstance(embedding, ReadsCaptions))
    return embedding.metric is not None and embedding.is_learnt and not has_mean


def of_distributions(embedding: Embedding, *, at_infinity: bool, kadtk: bool) -> list[str]:
    """The columns that compare distributions, and have no value where there are too few clips of a learnt embedding."""
    if embedding.metric is None:
        return []
    columns = {embedding.metric: True, f"kad_{embedding.name}": True, f"kadtk_{embedding.name}": kadtk}
    columns |= {f"is_{embedding.name}": embedding.is_classifier, f"{embedding.metric}_inf": at_infinity}
    return [column for column, is_asked in columns.items() if is_asked]


class Measures:
    """What one embedding says about generated clips, beside a reference that stays.

    Args:
        embedding: whose rows are compared; names the columns.
        reference: rows of real sound.
        captions: what the embedding's ``text`` made of the captions (clips, ...), by clip number; ``None`` if captions
            are not known, or not read by the embedding.
        at_infinity: also extrapolate the Frechet distance to infinitely many generated clips.
        kadtk: also compute the kernel distance as the package kadtk does.
    """

    def __init__(
        self,
        embedding: Embedding,
        reference: ClipRows,
        *,
        captions: Tensor | None = None,
        at_infinity: bool = False,
        kadtk: bool = False,
    ) -> None:
        self.embedding, self.reference = embedding, reference
        self.captions = captions
        self.at_infinity = at_infinity
        self.kadtk = kadtk
        self.left_out: dict[str, str] = {}
        """Measures that had no value, and why."""

    def __call__(self, generated: ClipRows, *, paired: bool = True) -> dict[str, float]:
        """Columns of ``scores.csv``. ``paired``: a clip has the number of the reference that it shares a caption with.

        A measure that has no value for these clips is left out, and told; ``left_out`` says why.
        """
        if few := self._too_few(generated):
            for column in of_distributions(self.embedding, at_infinity=self.at_infinity, kadtk=self.kadtk):
                self._leave_out(column, few)
        found = self._values(self.by_name(generated, paired=paired), generated)
        if self.at_infinity and self.embedding.metric is not None and not few:
            found |= self._infinite(self.embedding.metric, generated)
        return found

    def by_name(self, generated: ClipRows, *, paired: bool = True) -> dict[str, Callable[[ClipRows], float]]:
        """The measures that such clips allow, by column: to be asked about some of the clips too."""
        name = self.embedding.name
        is_enough = not self._too_few(generated)
        found = self._distances() if is_enough else {}
        if generated.logits is not None:
            if paired:
                found |= {f"kl_{name}": self.divergence, f"kl_sigmoid_{name}": self.divergence_sigmoid}
            if is_enough:
                found[f"is_{name}"] = functools.partial(self.inception, whole=len(generated))
        has_captions = self.captions is not None
        # An embedding that gives nothing else is told to be without captions.
        if isinstance(self.embedding, ReadsCaptions) and (has_captions or self.embedding.metric is None):
            found[self.embedding.caption_metric] = self.caption_score
        return found

    def distances(self, generated: ClipRows) -> dict[str, float]:
        """The Frechet and the kernel distance alone, where there are clips enough."""
        return {} if self._too_few(generated) else self._values(self._distances(), generated)

    def _distances(self) -> dict[str, Callable[[ClipRows], float]]:
        if self.embedding.metric is None:
            return {}
        name = self.embedding.name
        as_peer = {f"kadtk_{name}": self.kernel_as_kadtk} if self.kadtk else {}
        return {self.embedding.metric: self.frechet, f"kad_{name}": self.kernel, **as_peer}

    def _values(self, measures: Mapping[str, Callable[[ClipRows], float]], generated: ClipRows) -> dict[str, float]:
        """What each measure says, but for those that say nothing."""
        found = {}
        for name, measure in measures.items():
            with self._left_out_without_value(name):
                found[name] = finite(name, measure(generated))
        return found

    @contextmanager
    def _left_out_without_value(self, name: str) -> Iterator[None]:
        try:
            yield
        except NoValueError as error:
            self._leave_out(name, str(error))

    def _leave_out(self, name: str, why: str) -> None:
        if name not in self.left_out:
            _log.warning("%s is left out: %s", name, why)
        self.left_out[name] = why

    def _too_few(self, generated: ClipRows) -> str:
        """Why a learnt embedding's distances have no value; empty if they have one."""
        if self.embedding.metric is None or not self.embedding.is_learnt:
            return ""
        sides = (("generated", generated), ("reference", self.reference))
        found = (too_few_reason(num_clips=len(rows), num_rows=len(rows.rows), side=side) for side, rows in sides)
        return next(filter(None, found), "")

    def _infinite(self, metric: str, generated: ClipRows) -> dict[str, float]:
        """The Frechet distance of infinitely many clips, and how well a line fits."""
        name, (num_rows, num_features) = f"{metric}_inf", generated.rows.shape
        found: dict[str, float] = {}
        with self._left_out_without_value(name):
            refuse_short(num_clips=len(generated), num_rows=num_rows, num_features=num_features)
            line = at_infinity(lambda at: self.frechet(generated.at(at)), num_clips=len(generated))
            found |= {name: finite(name, line.distance), f"{name}_r2": line.r_squared}
        return found

    def frechet(self, generated: ClipRows) -> float:
        """The Frechet distance."""
        return float(frechet_distance_of_rows(self.reference.rows, generated.rows))

    def kernel(self, generated: ClipRows) -> float:
        """The kernel distance, with the reference's bandwidth, over pairs of different clips and captions."""
        return float(self._kernel(generated.rows, generated.clip_of_rows()))

    def kernel_as_kadtk(self, generated: ClipRows) -> float:
        """The kernel distance over all pairs of rows, with the bandwidth of the generated ones."""
        return float(as_kadtk(self.reference.rows, generated.rows))

    def divergence(self, generated: ClipRows) -> float:
        """The mean divergence of a classifier's probabilities from those of the clips' own recordings."""
        return float(kl_divergence(*self._paired_logits(generated)))

    def divergence_sigmoid(self, generated: ClipRows) -> float:
        """The same of classes that do not exclude one another."""
        return float(kl_divergence_sigmoid(*self._paired_logits(generated)))

    def _paired_logits(self, generated: ClipRows) -> tuple[Tensor, Tensor]:
        """Of the recordings and of the generated clips that have one."""
        has_recording = torch.isin(generated.clips, self.reference.clips)
        pairs = generated.at(has_recording.nonzero().flatten())
        reference = self.reference.of(pairs.clips)
        if reference.logits is None or pairs.logits is None:
            raise UserError(f"{self.embedding.name} gave no logits, so clips have no classes; use a classifier")
        return reference.logits, pairs.logits

    def inception(self, generated: ClipRows, *, whole: int | None = None) -> float:
        """The inception score of a classifier's logits.

        Args:
            generated: clips with logits.
            whole: the number of clips that these were drawn from, ``None`` where they are all. A score depends on how
                many clips a split has, so a part of the clips is dealt out to fewer splits of as many clips.
        """
        assert generated.logits is not None
        num_splits = 10 if whole is None else max(1, round(10 * len(generated) / whole))
        return float(inception_score(generated.logits, num_splits=num_splits))

    def caption_score(self, generated: ClipRows) -> float:
        """The mean of what the embedding says of clips beside their captions."""
        assert isinstance(self.embedding, ReadsCaptions)
        if self.captions is None:
            raise NoValueError(f"{self.embedding.caption_metric} compares sound with captions; name a file of captions")
        of_rows = self.captions[generated.clip_of_rows()]
        return float(self.embedding.judge(generated.rows, of_rows).mean())

    @functools.cached_property
    def _kernel(self) -> KernelDistance:
        return KernelDistance(self.reference.rows, self.reference.clip_of_rows())


def finite(name: str, value: float) -> float:
    """The value of a measure.

    Raises:
        NoValueError: if it is no finite number.
    """
    if not math.isfinite(value):
        raise NoValueError(f"{name} is {value}; listen to the samples, and score more clips")
    return value
