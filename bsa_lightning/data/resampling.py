"""Sound from one rate to another."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_LARGEST_KERNEL = 1 << 22
"""Numbers of a filter bank that torchaudio may make for a pair of rates: all usual pairs need far fewer."""


def resample(waveform: Tensor, rate: int, sample_rate: int) -> Tensor:
    """Sound (..., samples) from ``rate`` to ``sample_rate``, as torchaudio does.

    For rates whose ratio is no ratio of small numbers, such as 44,101 to 16,000, torchaudio's filter bank would take
    gigabytes; scipy's filter is as long as the larger of the two.
    """
    from torchaudio import functional

    shared = math.gcd(rate, sample_rate)
    down, up = rate // shared, sample_rate // shared
    if up * (down + 2 * math.ceil(6 * down / (0.99 * min(up, down)))) <= _LARGEST_KERNEL:
        return functional.resample(waveform, rate, sample_rate)
    from scipy.signal import resample_poly

    made = resample_poly(waveform.cpu().numpy(), up, down, axis=-1).astype(np.float32)
    return torch.from_numpy(made).to(waveform.device)
