"""What becomes of a recording in a clip: whether the clip is silent, clipped or cut."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bsa_lightning.data import audio
from bsa_lightning.data.audio import SILENCE, Channels, Samples
from bsa_lightning.data.sound_source import Source


@dataclass(frozen=True)
class Recording:
    """The findings of :func:`inspect` about an audio file that becomes a clip."""

    silent: bool
    """Whether the clip is silent."""
    clipped: bool
    """Whether at least three consecutive samples are at the largest or smallest value, near full scale."""
    cut: bool
    """Whether the file is longer than the clip."""
    other_channels: bool
    """Whether the clip is silent but unused channels of the file are not."""
    seconds: float = 0.0
    """The length of the file in seconds; 0 if it is unknown."""


def inspect(path: Source, *, seconds: float, num_channels: int = 1, channels: Channels = "first") -> Recording:
    """Reads a file to its end and reports what a clip of it would be like.

    Args:
        path: the file, or its bytes.
        seconds: the length of the clip in seconds.
        num_channels: the number of channels of the clip.
        channels: the channels of the file that are used, as in :func:`~bsa_lightning.data.audio.read`.

    Raises:
        UserError: if :func:`~bsa_lightning.data.audio.read` would raise it.
    """
    ranges: list[NDArray[np.float64]] = []

    def select(block: Samples) -> Samples:
        ranges.append(np.stack([block.min(axis=0), block.max(axis=0)]).astype(np.float64))
        return audio.select_channels(block, num_channels, channels)

    heard, rate = audio.decode(path, select, kept=num_channels)
    # The criteria of `normalise` and `fit_length`, except that resampling may change a peak.
    mean = heard.mean(axis=0, dtype=np.float64)
    level, beginning = (_peak(part, mean) for part in (heard, heard[: math.ceil(seconds * rate)]))
    silent = level <= SILENCE or 0.5 * beginning / level <= SILENCE
    lowest, highest = np.stack(ranges).min(axis=(0, 1)), np.stack(ranges).max(axis=(0, 1))
    return Recording(
        silent=silent,
        clipped=not silent and _is_clipped(heard),
        cut=len(heard) > seconds * rate,
        other_channels=silent and bool((highest - lowest).max() > max(2 * SILENCE, 4 * level)),
        seconds=len(heard) / rate,
    )


def _peak(samples: Samples, mean: NDArray[np.float64]) -> float:
    """The largest distance of ``samples`` (frames, channels) from ``mean`` (channels,)."""
    return float(np.maximum(samples.max(axis=0) - mean, mean - samples.min(axis=0)).max())


def _is_clipped(samples: Samples) -> bool:
    highest, lowest = samples.max(axis=0), samples.min(axis=0)
    at_limit = ((samples == highest) & (highest >= 0.99)) | ((samples == lowest) & (lowest <= -0.99))
    return bool((at_limit[2:] & at_limit[1:-1] & at_limit[:-2]).any())
