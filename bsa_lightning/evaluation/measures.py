"""The measures of one embedding: distances of its rows, divergences of its classes, scores of sound and captions."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.base import Embedding, ReadsCaptions
from bsa_lightning.evaluation.metrics.divergence import inception_score, kl_divergence, kl_divergence_sigmoid
from bsa_lightning.evaluation.metrics.frechet import frechet_distance_of_rows
from bsa_lightning.evaluation.metrics.frechet_at_infinity import at_infinity, refuse_short
from bsa_lightning.evaluation.metrics.kernel import KernelDistance, NoValueError, as_kadtk
from bsa_lightning.evaluation.row_store import ClipRows

_log = logging.getLogger(__name__)

MIN_CLIPS, MIN_ROWS = 10, 50
"""The least numbers of clips, and of rows of all clips together, for distances of a learnt embedding."""


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


def needs_many(embedding: Embedding, *, paired: bool, captions: bool) -> bool:
    """Returns whether an embedding has no measure for few clips: only distances of distributions, no mean over clips.

    Args:
        embedding: the embedding.
        paired: whether generated clips are paired with recordings of the same captions.
        captions: whether the captions of generated clips are known.
    """
    has_mean = (paired and embedding.is_classifier) or (captions and isinstance(embedding, ReadsCaptions))
    return embedding.metric is not None and embedding.is_learnt and not has_mean


def of_distributions(embedding: Embedding, *, at_infinity: bool, kadtk: bool) -> list[str]:
    """Returns the columns of an embedding that compare distributions, and need many clips.

    Args:
        embedding: the embedding.
        at_infinity: whether Frechet distances are extrapolated to infinitely many clips as well.
        kadtk: whether kernel distances are computed as the package kadtk does, too.
    """
    if embedding.metric is None:
        return []
    columns = {embedding.metric: True, f"kad_{embedding.name}": True, f"kadtk_{embedding.name}": kadtk}
    columns |= {f"is_{embedding.name}": embedding.is_classifier, f"{embedding.metric}_inf": at_infinity}
    return [column for column, is_asked in columns.items() if is_asked]


class Measures:
    """The measures of one embedding for generated clips, with one reference for all of them.

    Args:
        embedding: the embedding, which also names the columns.
        reference: the rows of real sound.
        captions: the embedding of the captions, (clips, d_text), by number of the clip; ``None`` if captions are not
            known, or the embedding does not use them.
        at_infinity: whether to extrapolate the Frechet distance to infinitely many generated clips as well.
        kadtk: whether to compute the kernel distance as the package kadtk does, too.
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
        """The reason why a measure had no value, by column."""

    def __call__(self, generated: ClipRows, *, paired: bool = True) -> dict[str, float]:
        """Returns the values of all measures by column of ``scores.csv``.

        Measures without a value for these clips are left out with a warning; ``left_out`` has the reasons.

        Args:
            generated: the rows of generated sound.
            paired: whether a generated clip has the number of the recording of the same caption.
        """
        if few := self._too_few(generated):
            for column in of_distributions(self.embedding, at_infinity=self.at_infinity, kadtk=self.kadtk):
                self._leave_out(column, few)
        found = self._values(self.by_name(generated, paired=paired), generated)
        if self.at_infinity and self.embedding.metric is not None and not few:
            found |= self._infinite(self.embedding.metric, generated)
        return found

    def by_name(self, generated: ClipRows, *, paired: bool = True) -> dict[str, Callable[[ClipRows], float]]:
        """Returns the measures that these clips allow, by column, as functions of all or some of the clips.

        Args:
            generated: the rows of all clips.
            paired: whether a generated clip has the number of the recording of the same caption.
        """
        name = self.embedding.name
        is_enough = not self._too_few(generated)
        found = self._distances() if is_enough else {}
        if generated.logits is not None:
            if paired:
                found |= {f"kl_{name}": self.divergence, f"kl_sigmoid_{name}": self.divergence_sigmoid}
            if is_enough:
                found[f"is_{name}"] = functools.partial(self.inception, whole=len(generated))
        has_captions = self.captions is not None
        # An embedding without other measures is kept here without captions, so that the reason is reported.
        if isinstance(self.embedding, ReadsCaptions) and (has_captions or self.embedding.metric is None):
            found[self.embedding.caption_metric] = self.caption_score
        return found

    def distances(self, generated: ClipRows) -> dict[str, float]:
        """Returns the Frechet and the kernel distances alone; empty if there are too few clips."""
        return {} if self._too_few(generated) else self._values(self._distances(), generated)

    def _distances(self) -> dict[str, Callable[[ClipRows], float]]:
        if self.embedding.metric is None:
            return {}
        name = self.embedding.name
        as_peer = {f"kadtk_{name}": self.kernel_as_kadtk} if self.kadtk else {}
        return {self.embedding.metric: self.frechet, f"kad_{name}": self.kernel, **as_peer}

    def _values(self, measures: Mapping[str, Callable[[ClipRows], float]], generated: ClipRows) -> dict[str, float]:
        """Returns the value of each measure that has one."""
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
        """Returns why the distances of a learnt embedding have no value; empty if they have one."""
        if self.embedding.metric is None or not self.embedding.is_learnt:
            return ""
        sides = (("generated", generated), ("reference", self.reference))
        found = (too_few_reason(num_clips=len(rows), num_rows=len(rows.rows), side=side) for side, rows in sides)
        return next(filter(None, found), "")

    def _infinite(self, metric: str, generated: ClipRows) -> dict[str, float]:
        """Returns the Frechet distance at infinitely many clips, and the R^2 of the line that it is extrapolated by."""
        name, (num_rows, num_features) = f"{metric}_inf", generated.rows.shape
        found: dict[str, float] = {}
        with self._left_out_without_value(name):
            refuse_short(num_clips=len(generated), num_rows=num_rows, num_features=num_features)
            line = at_infinity(lambda at: self.frechet(generated.at(at)), num_clips=len(generated))
            found |= {name: finite(name, line.distance), f"{name}_r2": line.r_squared}
        return found

    def frechet(self, generated: ClipRows) -> float:
        """Returns the Frechet distance from the reference."""
        return float(frechet_distance_of_rows(self.reference.rows, generated.rows))

    def kernel(self, generated: ClipRows) -> float:
        """Returns the kernel distance, with the reference's bandwidth, over pairs of different clips and captions."""
        return float(self._kernel(generated.rows, generated.clip_of_rows()))

    def kernel_as_kadtk(self, generated: ClipRows) -> float:
        """Returns the kernel distance over all pairs of rows, with the bandwidth of the generated rows."""
        return float(as_kadtk(self.reference.rows, generated.rows))

    def divergence(self, generated: ClipRows) -> float:
        """Returns the mean divergence of class probabilities from those of the recordings of the same captions."""
        return float(kl_divergence(*self._paired_logits(generated)))

    def divergence_sigmoid(self, generated: ClipRows) -> float:
        """Returns the mean divergence for classes that do not exclude one another."""
        return float(kl_divergence_sigmoid(*self._paired_logits(generated)))

    def _paired_logits(self, generated: ClipRows) -> tuple[Tensor, Tensor]:
        """Returns the logits of recordings and of generated clips, (pairs, classes) each, of the clips with both."""
        has_recording = torch.isin(generated.clips, self.reference.clips)
        pairs = generated.at(has_recording.nonzero().flatten())
        reference = self.reference.of(pairs.clips)
        if reference.logits is None or pairs.logits is None:
            raise UserError(f"{self.embedding.name} gave no logits, so clips have no classes; use a classifier")
        return reference.logits, pairs.logits

    def inception(self, generated: ClipRows, *, whole: int | None = None) -> float:
        """Returns the inception score of a classifier's logits.

        Args:
            generated: the rows of clips, with logits.
            whole: the number of clips that these clips were drawn from; ``None`` if they are all. The score depends on
                the number of clips of a split, so a part of the clips gets fewer splits of the same size.
        """
        assert generated.logits is not None
        num_splits = 10 if whole is None else max(1, round(10 * len(generated) / whole))
        return float(inception_score(generated.logits, num_splits=num_splits))

    def caption_score(self, generated: ClipRows) -> float:
        """Returns the mean score of clips by their captions.

        Raises:
            NoValueError: if captions are not known, or the embedding does not understand one.
        """
        assert isinstance(self.embedding, ReadsCaptions)
        if self.captions is None:
            raise NoValueError(f"{self.embedding.caption_metric} compares sound with captions; name a file of captions")
        if self.embedding.judges_logits and generated.logits is not None:
            return float(self.embedding.judge(generated.logits, self.captions[generated.clips]).mean())
        of_rows = self.captions[generated.clip_of_rows()]
        return float(self.embedding.judge(generated.rows, of_rows).mean())

    @functools.cached_property
    def _kernel(self) -> KernelDistance:
        return KernelDistance(self.reference.rows, self.reference.clip_of_rows())


def finite(name: str, value: float) -> float:
    """Returns the value of a measure of this name.

    Raises:
        NoValueError: if it is not finite.
    """
    if not math.isfinite(value):
        raise NoValueError(f"{name} is {value}; listen to the samples, and score more clips")
    return value
