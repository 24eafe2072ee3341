"""Waveforms to rows of features: what a Frechet distance compares."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.reading import Plain, Reading


class Features(NamedTuple):
    """What an embedding makes of a batch of clips."""

    rows: Tensor
    """(batch, rows of a clip, num_features)."""
    logits: Tensor | None = None
    """(batch, classes), of an embedding that is a classifier."""


class Embedding(nn.Module, ABC):
    """A feature extractor; a clip gives one row or several.

    Args:
        reading: how sound becomes what is heard; ``None`` stands for :class:`Plain`.

    Raises:
        UserError: if ``reading`` is something else.
    """

    name: str
    """For caches and columns such as ``kad_<name>``."""
    metric: str | None
    """Column of ``scores.csv`` that a Frechet distance of these rows is written to; ``None`` for rows that are no
    features, whose Frechet and kernel distances are left out."""
    sample_rate: int
    num_features: int
    fingerprint: str
    """Of all that decides the features: the code's own version, and the weights' sha256 where there are any."""
    is_learnt: bool = True
    """Whether distances of few clips are refused; what learnt nothing from sound may be tried on a handful."""
    is_classifier: bool = False
    """Whether features come with logits."""
    reading: Reading = Plain()

    def __init__(self, reading: Reading | None = None) -> None:
        super().__init__()
        if reading is not None:
            if not isinstance(reading, Reading):
                raise UserError(f"reading is {reading!r}, but must be a Reading, such as Plain or AsAudioldmEval")
            self.reading = reading

    def num_rows(self, num_samples: int) -> int | None:
        """How many rows a clip of so many samples gives; ``None`` if that shows only when it is heard."""
        del num_samples
        return None

    @abstractmethod
    def forward(self, waveform: Tensor) -> Features:
        """Features of waveforms (batch, samples) in [-1, 1] at ``sample_rate``."""


class LogMelStatistics(Embedding):
    """Mean and deviation over time of VGGish's own input patch: needs no download, and is no FAD.

    The patch is 96 frames (0.96 s) of 64 log-mel bands: 25 ms windows every 10 ms, 512-point FFT, HTK bands from
    125 to 7500 Hz on magnitudes, log(x + 0.01) (Hershey et al. 2017). Windows do not overlap; an incomplete one at
    the end is dropped, and a clip shorter than one window is padded with silence.

    Args:
        reading: how sound becomes what is heard; ``None`` stands for :class:`Plain`.
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
        """Waveforms (batch, samples) to VGGish's input, (batch, windows, 96, 64)."""
        shortest = _WINDOW + (self.num_frames - 1) * _HOP
        waveform = nn.functional.pad(waveform, (0, max(0, shortest - waveform.shape[-1])))
        # The window makes this float64, as torchvggish computes: in float32 a loud tone puts quiet bands off by 7e-4.
        frames = waveform.unfold(-1, _WINDOW, _HOP) * self.window
        log_mel = (torch.fft.rfft(frames, n=_N_FFT).abs() @ self.bands + 0.01).log().float()
        num_windows = log_mel.shape[1] // self.num_frames
        return log_mel[:, : num_windows * self.num_frames].unflatten(1, (num_windows, self.num_frames))

    def forward(self, waveform: Tensor) -> Features:
        patches = self.patches(waveform)
        return Features(torch.cat([patches.mean(2), patches.std(2, correction=0)], dim=-1))


def vggish_bands() -> Tensor:
    """(257, 64): triangles that are linear in mel (not in Hz), without the DC bin."""

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
