"""Tango's log-mel spectrogram (16 kHz, 1024-point Hann window, hop 160, 64 Slaney bands to 8 kHz) and its inverse."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HOP_LENGTH = 160
NUM_BANDS = 64
_N_FFT = 1024
_FLOOR = 1e-5


class LogMel(nn.Module):
    """The natural logarithm of the magnitude mel spectrogram, clamped from below at 1e-5.

    Args:
        sample_rate: the sample rate of the waveforms, in Hz.
    """

    def __init__(self, sample_rate: int = 16_000) -> None:
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.mel = MelSpectrogram(
            sample_rate,
            n_fft=_N_FFT,
            hop_length=HOP_LENGTH,
            n_mels=NUM_BANDS,
            power=1.0,
            norm="slaney",
            mel_scale="slaney",
        )

    def forward(self, waveform: Tensor) -> Tensor:
        """The log-mel spectrograms (batch, frames, 64) of waveforms (batch, frames * 160)."""
        num_frames = waveform.shape[-1] // HOP_LENGTH
        mel: Tensor = self.mel(waveform)[..., :num_frames]
        return mel.clamp(min=_FLOOR).log().transpose(-1, -2)


class GriffinLim(nn.Module):
    """A vocoder without weights: magnitudes from a log-mel spectrogram by least squares, then phases by Griffin-Lim.

    It uses every second frame, which is almost five times as fast and makes the error of the log-mel spectrogram a
    tenth larger.

    Args:
        sample_rate: the sample rate of the waveforms, in Hz.
        num_iterations: the number of iterations of the fast Griffin-Lim algorithm (Perraudin et al. 2013).
    """

    inverse: Tensor

    def __init__(self, sample_rate: int = 16_000, num_iterations: int = 12) -> None:
        super().__init__()
        from torchaudio.transforms import GriffinLim as Phases

        bands = LogMel(sample_rate).mel.mel_scale.fb
        self.register_buffer("inverse", torch.linalg.pinv(bands), persistent=False)
        self.phases = Phases(
            _N_FFT, n_iter=num_iterations, hop_length=2 * HOP_LENGTH, power=1.0, momentum=0.9, rand_init=False
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """The waveforms (batch, frames * 160), in [-1, 1], of log-mel spectrograms (batch, frames, 64)."""
        num_samples = log_mel.shape[1] * HOP_LENGTH
        magnitude = (log_mel.float().exp() @ self.inverse).clamp(min=0).transpose(-1, -2)
        # The last frame is repeated for the one or two more that a centred transform needs.
        magnitude = torch.cat([magnitude, magnitude[..., -1:], magnitude[..., -1:]], dim=-1)[..., ::2]
        waveform: Tensor = self.phases(magnitude)[..., :num_samples]
        return waveform.clamp(-1.0, 1.0)
