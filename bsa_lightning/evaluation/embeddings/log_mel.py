"""Statistics of log-mel spectrograms: the embedding that needs no weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bsa_lightning.evaluation.embeddings.base import Embedding, Features
from bsa_lightning.evaluation.embeddings.reading import Reading

WINDOW, HOP = 400, 160
"""The samples of a frame, and from one frame to the next, at 16 kHz."""
NUM_FRAMES = 96
"""The number of frames of a patch."""
_N_FFT = 2 ** math.ceil(math.log2(WINDOW))


class LogMelBands(nn.Module):
    """VGGish's log-mel spectrogram: 25 ms windows every 10 ms, 512-point FFT, 64 HTK bands of magnitudes.

    Args:
        offset: the number that is added to a band before its logarithm is taken.
    """

    bands: Tensor
    window: Tensor

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset
        self.register_buffer("bands", vggish_bands(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=True, dtype=torch.float64), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns the spectrograms (batch, frames, 64), float32, of waveforms (batch, samples) in [-1, 1]."""
        # The window makes this float64, as in torchvggish: in float32, a loud tone changes quiet bands by up to 7e-4.
        frames = waveform.unfold(-1, WINDOW, HOP) * self.window
        return (torch.fft.rfft(frames, n=_N_FFT).abs() @ self.bands + self.offset).log().float()


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

    def __init__(self, reading: Reading | None = None) -> None:
        super().__init__(reading)
        self.log_mel = LogMelBands(0.01)

    def num_rows(self, num_samples: int) -> int:
        return max(1, (1 + (num_samples - WINDOW) // HOP) // NUM_FRAMES)

    def patches(self, waveform: Tensor) -> Tensor:
        """Returns VGGish's input, (batch, patches, 96, 64), for waveforms (batch, samples) in [-1, 1]."""
        shortest = WINDOW + (NUM_FRAMES - 1) * HOP
        log_mel = self.log_mel(nn.functional.pad(waveform, (0, max(0, shortest - waveform.shape[-1]))))
        num_patches = log_mel.shape[1] // NUM_FRAMES
        return log_mel[:, : num_patches * NUM_FRAMES].unflatten(1, (num_patches, NUM_FRAMES))

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
