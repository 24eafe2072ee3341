"""Resampling of waveforms."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_LARGEST_KERNEL = 1 << 22
"""The most coefficients of a filter bank of torchaudio; all usual pairs of rates need far fewer."""


def resample(waveform: Tensor, rate: int, sample_rate: int) -> Tensor:
    """Resamples a waveform with torchaudio.

    If the ratio of the rates is not one of small integers, such as 44,101 to 16,000, the filter bank of torchaudio
    would take gigabytes, and scipy's polyphase filter is used instead.

    Args:
        waveform: the samples, (..., samples).
        rate: the sample rate of ``waveform``, in Hz.
        sample_rate: the sample rate of the result, in Hz.
    """
    from torchaudio import functional

    shared = math.gcd(rate, sample_rate)
    down, up = rate // shared, sample_rate // shared
    if up * (down + 2 * math.ceil(6 * down / (0.99 * min(up, down)))) <= _LARGEST_KERNEL:
        return functional.resample(waveform, rate, sample_rate)
    from scipy.signal import resample_poly

    made = resample_poly(waveform.cpu().numpy(), up, down, axis=-1).astype(np.float32)
    return torch.from_numpy(made).to(waveform.device)
