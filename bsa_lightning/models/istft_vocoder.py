"""The vocoder of the built-in teachers: a network for magnitudes, and a few iterations of Griffin-Lim for phases.

It needs torch and diffusers alone, so that a model folder may carry this file for those who have no more than these.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

# ModelMixin has to be a name of this module: diffusers finds out there how to load what a model_index.json names.
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.functional import gelu

_KNEE = 0.9
_MEAN, _SCALE = -6.0, 3.0
"""Of the values of log-mel spectrograms and of log-magnitudes, roughly; the former begin at -11.5."""
_LARGEST_LOG = 7.0
"""The largest natural logarithm of a magnitude; a sinusoid at full scale has 5.5 at 1024 points."""
_NUM_FITS = 3
"""The number of times that magnitudes are scaled to the bands of the log-mel spectrogram; each comes closer."""
_NUM_CORRECTIONS = 2
"""The number of times that the bands get back the energy that they lose where phases do not fit together."""
_MOMENTUM = 0.9
"""Of the fast Griffin-Lim algorithm (Perraudin et al. 2013)."""
_GAIN = 1.06
"""Of all magnitudes: half of the power that noise loses, whose magnitudes the network makes smooth."""
_CEILING = 0.47
"""Phases are sought for a waveform within this: training clips have a peak of 0.5, and chirps reached 1 without it."""


class ISTFTVocoder(ModelMixin, ConfigMixin):
    """A network for the magnitudes of a spectrogram, whose phases follow by Griffin-Lim from those of white noise.

    The network is ConvNeXt blocks at the rate of frames, as in Vocos (Siuzdak 2023). It says how the energy of each
    band lies in its bins; the energy itself is kept as the log-mel spectrogram has it. The noise is the same at every
    call, so that the waveform is a function of the spectrogram. Phases are sought for a waveform of no higher peak
    than training clips have; what is louder as a whole stays so, and a soft limit keeps samples within full scale.

    Args:
        model_in_dim: the number of mel bands.
        sampling_rate: the sample rate in Hz.
        hop_length: the number of samples of a frame.
        n_fft: the number of points of the Fourier transform, and of its Hann window.
        hidden_size: the width of the blocks.
        num_layers: the number of blocks.
        num_iterations: the number of iterations of Griffin-Lim, at least 0.

    Raises:
        ValueError: if ``num_iterations`` is negative.

    Attributes:
        bands: the filters of the log-mel spectrogram, (bins, bands), which are stored with the weights.
    """

    window: Tensor
    bands: Tensor

    @register_to_config
    def __init__(
        self,
        model_in_dim: int = 64,
        sampling_rate: int = 16_000,  # noqa: ARG002 - for the configuration
        hop_length: int = 160,
        n_fft: int = 1024,
        hidden_size: int = 128,
        num_layers: int = 6,
        num_iterations: int = 6,
    ) -> None:
        super().__init__()
        if num_iterations < 0:
            raise ValueError(f"num_iterations is {num_iterations}, but must be at least 0")
        self.hop_length, self.n_fft, self.num_iterations = hop_length, n_fft, num_iterations
        num_bins = n_fft // 2 + 1
        self.conv_in = nn.Conv1d(model_in_dim, hidden_size, 7, padding=3)
        self.norm_in = nn.LayerNorm(hidden_size)
        self.blocks = nn.ModuleList([_Block(hidden_size) for _ in range(num_layers)])
        self.norm_out = nn.LayerNorm(hidden_size)
        self.out = nn.Linear(hidden_size, num_bins)
        self.register_buffer("bands", torch.ones(num_bins, model_in_dim))
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # noqa: ANN401 - theirs
        """Writes a folder as diffusers does, with this file, which diffusers does not have."""
        super().save_pretrained(save_directory, **kwargs)
        shutil.copyfile(__file__, Path(save_directory) / "istft_vocoder.py")

    def forward(self, log_mel: Tensor) -> Tensor:
        """The waveforms (batch, frames * hop_length), in (-1, 1), of log-mel spectrograms (batch, frames, bands)."""
        num_samples = log_mel.shape[1] * self.hop_length
        noise = torch.randn(1, num_samples, generator=torch.Generator().manual_seed(0)).to(log_mel.device)
        # A centred transform has one frame more than the log-mel spectrogram.
        mel = _GAIN * torch.cat([log_mel, log_mel[:, -1:]], dim=1).float().exp().transpose(1, 2)
        magnitude = _GAIN * self.magnitudes(log_mel)
        magnitude = torch.cat([magnitude, magnitude[..., -1:]], dim=-1)
        spectrum = self.transform(noise)
        before = torch.zeros_like(spectrum)
        for _ in range(self.num_iterations):
            waveform = self._inverse(_with_phases(magnitude, spectrum), num_samples)
            rebuilt = self.transform(waveform.clamp(-_CEILING, _CEILING))
            spectrum, before = rebuilt - _MOMENTUM / (1 + _MOMENTUM) * before, rebuilt
        waveform = self._inverse(_with_phases(magnitude, spectrum), num_samples)
        for _ in range(_NUM_CORRECTIONS):
            rebuilt = self.transform(waveform.clamp(-_CEILING, _CEILING))
            waveform = self._inverse(_with_phases(self._fit(rebuilt.abs(), mel), rebuilt), num_samples)
        return limit(waveform).to(log_mel.dtype)

    def magnitudes(self, log_mel: Tensor) -> Tensor:
        """The magnitudes (batch, bins, frames), float32, of log-mel spectrograms (batch, frames, bands)."""
        hidden = self.norm_in(self.conv_in((log_mel.transpose(1, 2) - _MEAN) / _SCALE).transpose(1, 2))
        for block in self.blocks:
            hidden = block(hidden)
        # Float32 from here on: a Fourier transform of lower precision is not on every device.
        logs = self.out(self.norm_out(hidden)).float().transpose(1, 2) * _SCALE + _MEAN
        magnitude, mel = logs.clamp(max=_LARGEST_LOG).exp(), log_mel.float().exp().transpose(1, 2)
        for _ in range(_NUM_FITS):
            magnitude = self._fit(magnitude, mel)
        return magnitude

    def transform(self, waveform: Tensor) -> Tensor:
        """The spectrograms (batch, bins, frames + 1), complex64, of waveforms (batch, frames * hop_length)."""
        window = self.window.float()
        return torch.stft(waveform, self.n_fft, self.hop_length, window=window, return_complex=True)

    def _inverse(self, spectrum: Tensor, num_samples: int) -> Tensor:
        return torch.istft(spectrum, self.n_fft, self.hop_length, window=self.window.float(), length=num_samples)

    def _fit(self, magnitude: Tensor, mel: Tensor) -> Tensor:
        """Magnitudes (batch, bins, frames), scaled towards the energies of the bands (batch, bands, frames)."""
        bands = self.bands.float()
        there = torch.einsum("bkf,km->bmf", magnitude, bands).clamp(min=1e-7)
        shares = bands / bands.sum(1, keepdim=True).clamp(min=1e-12)
        factors = torch.einsum("bmf,km->bkf", mel / there, shares)
        return magnitude * factors.clamp(1e-3, 1e3)


def _with_phases(magnitude: Tensor, spectrum: Tensor) -> Tensor:
    return magnitude * spectrum / spectrum.abs().clamp(min=1e-9)


class _Block(nn.Module):
    """A ConvNeXt block in one dimension (Liu et al. 2022): a depthwise convolution and two layers at each frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 3 * width)
        self.down = nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, hidden: Tensor) -> Tensor:
        """Frames (batch, frames, width) to frames."""
        mixed = self.depthwise(hidden.transpose(1, 2)).transpose(1, 2)
        result: Tensor = hidden + self.scale * self.down(gelu(self.up(self.norm(mixed))))
        return result


def limit(waveform: Tensor) -> Tensor:
    """Values up to 0.9 as they are, larger ones smoothly towards 1, which none reaches."""
    beyond = (waveform.abs() - _KNEE) / (1 - _KNEE)
    limited = waveform.sign() * (_KNEE + (1 - _KNEE) * beyond / (1 + beyond))
    return torch.where(beyond < 0, waveform, limited)
