"""The base class of embeddings, which turn waveforms into rows of features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.reading import Plain, Reading


class Features(NamedTuple):
    """The features of a batch of clips."""

    rows: Tensor
    """The rows, (batch, rows of a clip, num_features)."""
    logits: Tensor | None = None
    """The class logits, (batch, classes), of an embedding that is a classifier."""


class Embedding(nn.Module, ABC):
    """A feature extractor, which gives one row or several for each clip.

    Args:
        reading: the conversion of sound to the embedding's input; ``None`` is :class:`Plain`.

    Raises:
        UserError: if ``reading`` is not a :class:`Reading`.
    """

    name: str
    """The name in caches and in columns such as ``kad_<name>``."""
    metric: str | None
    """The column of ``scores.csv`` for the Frechet distance; ``None`` if the rows are not features, so that there are
    neither Frechet nor kernel distances."""
    sample_rate: int
    """The sample rate of the input, in Hz."""
    num_features: int
    """The number of features of a row."""
    fingerprint: str
    """A text that identifies the features: the version of the code, and the SHA-256 of the weights if there are any."""
    is_learnt: bool = True
    """Whether the features are learnt, so that distances of few clips are left out."""
    is_classifier: bool = False
    """Whether the features come with class logits."""
    judges_logits: bool = False
    """Whether the score of a caption is computed from the class logits of clips instead of their rows."""
    reading: Reading = Plain()

    def __init__(self, reading: Reading | None = None) -> None:
        super().__init__()
        if reading is not None:
            if not isinstance(reading, Reading):
                raise UserError(f"reading is {reading!r}, but must be a Reading, such as Plain or AsAudioldmEval")
            self.reading = reading

    def num_rows(self, num_samples: int) -> int | None:
        """Returns the number of rows of a clip with this number of samples; ``None`` if it depends on the sound."""
        del num_samples
        return None

    @abstractmethod
    def forward(self, waveform: Tensor) -> Features:
        """Returns the features of waveforms, (batch, samples) in [-1, 1] at ``sample_rate``."""


@runtime_checkable
class ReadsCaptions(Protocol):
    """An embedding that scores sound by its caption, as CLAP does by their similarity."""

    caption_metric: str
    """The column of ``scores.csv`` for the mean score of all clips."""

    def text(self, captions: Sequence[str]) -> Tensor:
        """Returns the embedding of captions, (captions, d_text)."""

    def judge(self, rows: Tensor, captions: Tensor) -> Tensor:
        """Returns the score of each row, (n,), or of those rows whose captions say something to the embedding.

        Args:
            rows: the rows of sound, (n, num_features); with ``judges_logits`` the class logits of clips, (n, classes).
            captions: the embedding of each row's caption, (n, d_text).

        Raises:
            NoValueError: if the embedding does not understand a caption, or none of them.
        """


def refuse_repeated(embeddings: Sequence[Embedding]) -> None:
    """Refuses embeddings of the same name, whose columns would have the same names, too.

    Raises:
        UserError: if a name comes more than once.
    """
    names = [embedding.name for embedding in embeddings]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"embeddings names {repeated[0]} {names.count(repeated[0])} times; name each once")
