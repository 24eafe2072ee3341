"""The base class of embeddings, from waveforms to rows of features, and the one that needs no weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
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
        """Returns the score of each row, (n,).

        Args:
            rows: the rows of sound, (n, num_features).
            captions: the embedding of each row's caption, (n, d_text).

        Raises:
            NoValueError: if the embedding does not understand a caption.
        """


def refuse_repeated(embeddings: Sequence[Embedding]) -> None:
    """Refuses embeddings of the same name, whose columns would have the same names, too.

    Raises:
        UserError: if a name comes more than once.
    """
    names = [embedding.name for embedding in embeddings]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"embeddings names {repeated[0]} {names.count(repeated[0])} times; name each once")


class LogMelStatistics(Embedding):
    """The mean and standard deviation over time of VGGish's input patches, which need no download and are not a FAD.

    A patch is 96 frames (0.96 s) of 64 log-mel bands: 25 ms windows every 10 ms, 512-point FFT, HTK bands from 125 to
    7500 Hz on magnitudes, log(x + 0.01) (Hershey et al. 2017). Patches do not overlap; an incomplete patch at the end
    is dropped, and a clip shorter than one patch is padded with silence.

    Args:
        reading: the conversion of sound to the embedding's input; ``None`` is :class:`Plain`.
    """

    name = "logmel"
    is_learnt = False
    metric = "fd_logmel"
    fingerprint = "logmel-1"
    sample_rate = 16_000
    num_features = 128
    num_frames = 96
    bands: Tensor
    window: Tensor

    def __init__(self, reading: Reading | None = None) -> None:
        super().__init__(reading)
        self.register_buffer("bands", vggish_bands(), persistent=False)
        self.register_buffer("window", torch.hann_window(_WINDOW, periodic=True, dtype=torch.float64), persistent=False)

    def num_rows(self, num_samples: int) -> int:
        return max(1, (1 + (num_samples - _WINDOW) // _HOP) // self.num_frames)

    def patches(self, waveform: Tensor) -> Tensor:
        """Returns VGGish's input, (batch, patches, 96, 64), for waveforms (batch, samples) in [-1, 1]."""
        shortest = _WINDOW + (self.num_frames - 1) * _HOP
        waveform = nn.functional.pad(waveform, (0, max(0, shortest - waveform.shape[-1])))
        # The window makes this float64, as in torchvggish: in float32, a loud tone changes quiet bands by up to 7e-4.
        frames = waveform.unfold(-1, _WINDOW, _HOP) * self.window
        log_mel = (torch.fft.rfft(frames, n=_N_FFT).abs() @ self.bands + 0.01).log().float()
        num_windows = log_mel.shape[1] // self.num_frames
        return log_mel[:, : num_windows * self.num_frames].unflatten(1, (num_windows, self.num_frames))

    def forward(self, waveform: Tensor) -> Features:
        patches = self.patches(waveform)
        return Features(torch.cat([patches.mean(2), patches.std(2, correction=0)], dim=-1))


def vggish_bands() -> Tensor:
    """Returns the weights of VGGish's mel bands, (257, 64): triangles linear in mel (not in Hz), without the DC bin."""

    def mel(frequency: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(frequency / 700.0)

    bins = mel(torch.linspace(0, 8000, _N_FFT // 2 + 1, dtype=torch.float64))[:, None]
    low, high = mel(torch.tensor([125.0, 7500.0], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, 66, dtype=torch.float64)
    lower, center, upper = edges[:-2], edges[1:-1], edges[2:]
    weights = torch.minimum((bins - lower) / (center - lower), (upper - bins) / (upper - center)).clamp(min=0)
    weights[0] = 0
    return weights


_WINDOW, _HOP = 400, 160
_N_FFT = 2 ** math.ceil(math.log2(_WINDOW))
