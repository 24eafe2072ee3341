"""Audio files to normalised waveforms, as Tango's training reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bsa_lightning.errors import UserError
from bsa_lightning.files import whole

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_SILENCE = 1e-6


def read(path: Path, *, sample_rate: int, num_channels: int = 1) -> Tensor:
    """The first channels of a file (wav, flac, ogg, mp3) at ``sample_rate``, float32 (num_channels, samples).

    One channel is (samples,). A file with too few repeats its last.

    Raises:
        UserError: if the file cannot be decoded or holds no samples.
    """
    import soundfile
    from torchaudio.functional import resample

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{path} cannot be read as audio ({error}); replace it or take it off the list") from error
    if len(samples) == 0:
        raise UserError(f"{path} holds no samples; replace it or take it off the list")
    if not np.isfinite(samples).all():
        raise UserError(f"{path} holds samples that are no numbers; replace it or take it off the list")
    if num_channels == 1:
        return resample(torch.from_numpy(samples[:, 0].copy()), rate, sample_rate)
    channels = [min(channel, samples.shape[1] - 1) for channel in range(num_channels)]
    return resample(torch.from_numpy(samples.T[channels].copy()), rate, sample_rate)


def normalise(waveform: Tensor) -> Tensor:
    """Tango's normalisation of (..., samples): no mean in any channel, peak 0.5 over all; silence stays silence."""
    waveform = waveform - waveform.mean(-1, keepdim=True)
    peak = waveform.abs().max()
    # A constant minus its mean leaves rounding, which must not be blown up to a sound.
    return 0.5 * waveform / (peak + 1e-8) if peak > _SILENCE else torch.zeros_like(waveform)


def fit_length(waveform: Tensor, *, num_samples: int) -> Tensor:
    """Cut or zero-padded at the end to (..., num_samples), with the peak of what is left at 0.5 again."""
    padding = max(0, num_samples - waveform.shape[-1])
    waveform = torch.nn.functional.pad(waveform[..., :num_samples], (0, padding))
    peak = waveform.abs().max()
    return 0.5 * waveform / peak if peak > _SILENCE else torch.zeros_like(waveform)


def write(path: Path, waveform: Tensor, *, sample_rate: int) -> None:
    """Writes (samples,) or (channels, samples) in [-1, 1] as 16-bit PCM, under another name until whole."""
    import soundfile

    with whole(path) as partial:
        soundfile.write(partial, waveform.cpu().clamp(-1, 1).numpy().T, sample_rate, format="WAV", subtype="PCM_16")
