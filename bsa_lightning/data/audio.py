"""Reading, checking and writing of audio files, and the normalisation of Tango's training."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write
from bsa_lightning.data.resampling import resample
from bsa_lightning.data.sound_source import REMEDY, Source, open_sound
from bsa_lightning.data.truncation import missing_bytes, missing_frames

Channels = Literal["first", "mean"]
"""Which channels of a file are used: the first ones, as many as a clip has, or the mean of all."""
Samples = NDArray[np.float32]

MOST_SECONDS = 3600
MOST_FRAMES = MOST_SECONDS * 48_000
"""The most samples per channel of a file of one or two channels; a file of more channels may have fewer."""
RATES = (100, 1_000_000)
"""The smallest and the largest sample rate of a file, in Hz."""
_UNKNOWN = 2**62
"""The least number of frames with which libsndfile says that the header of a file does not tell its length."""
SILENCE = 1e-6
"""The largest peak of a waveform that counts as silent."""
_SOFTWARE = "bsa-lightning"
_LOUDEST = 128.0
"""The largest peak of samples; larger ones are integers that were stored as floating-point numbers."""
_LARGE = 2.0**60
"""The largest samples that are summed without scaling."""
_BLOCK = 1 << 20
"""The number of samples, over all channels, that are decoded at once."""
_MORE_SUFFIXES = ".aif .aifc .snd .oga .opus .wave .sph .nist .iff .8svx .sf .fap"
_NO_SUFFIXES = ("MAT4", "MAT5", "MPC2K", "RAW")
"""Formats without a suffix of their own."""


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of the formats that the installed libsndfile reads."""
    import soundfile

    formats = [name for name in soundfile.available_formats() if name not in _NO_SUFFIXES]
    return frozenset([*(f".{name.lower()}" for name in formats), *_MORE_SUFFIXES.split()])


def refuse_channels(channels: object) -> None:
    """Checks that a setting ``channels`` is "first" or "mean".

    Raises:
        UserError: if it is not.
    """
    if channels not in get_args(Channels):
        raise UserError(f"channels is {channels!r}, but must be {' or '.join(get_args(Channels))}")


def read(path: Source, *, sample_rate: int, num_channels: int = 1, channels: Channels = "first") -> Tensor:
    """The waveform of an audio file: (num_channels, samples), or (samples,) for one channel, in float32.

    Args:
        path: a file in any format of libsndfile, at most one hour long, with 100 to 1,000,000 samples per second.
        sample_rate: the sample rate of the result in Hz, to which the file is resampled.
        num_channels: the number of channels of the result.
        channels: "first" uses the first ``num_channels`` channels of the file, and its last channel again if it has
            fewer; "mean" uses the mean of all channels for each channel of the result.

    Raises:
        UserError: if the file cannot be decoded to its end, is too long, or has no samples.
    """
    samples, rate = decode(path, lambda block: select_channels(block, num_channels, channels), kept=num_channels)
    waveform = resample(torch.from_numpy(np.ascontiguousarray(samples.T)), rate, sample_rate)
    if not waveform.isfinite().all():
        raise UserError(f"{path} has samples near the largest number in float32; {REMEDY}")
    return waveform[0] if num_channels == 1 else waveform


def recorded(path: Source) -> tuple[Tensor, int]:
    """All channels of a file without changes, (channels, samples) in float32, and its sample rate in Hz.

    Raises:
        UserError: if :func:`read` would raise it, or the samples are too large to be fractions of full scale.
    """
    num_channels = num_channels_of(path)
    samples, rate = decode(path, lambda block: select_channels(block, num_channels, "first"), kept=num_channels)
    if (peak := float(np.abs(samples).max())) > _LOUDEST:
        raise UserError(f"{path} has samples of {peak:g}, where full scale is 1; divide them by their full scale")
    return torch.from_numpy(np.ascontiguousarray(samples.T)), rate


def length_of(path: Source) -> tuple[int, int]:
    """The number of samples per channel in the header of a file, and its sample rate in Hz.

    Raises:
        UserError: if it cannot be opened.
    """
    with open_sound(path) as file:
        return int(file.frames), int(file.samplerate)


def num_channels_of(path: Source) -> int:
    """The number of channels of a file.

    Raises:
        UserError: if it cannot be opened.
    """
    with open_sound(path) as file:
        return int(file.channels)


def normalise(waveform: Tensor) -> Tensor:
    """Normalises a waveform (..., samples) as Tango does: each channel to mean 0, all together to peak 0.5.

    Silence becomes zeros.
    """
    peak = waveform.abs().max()
    if peak > _LARGE:  # the sum would overflow; scaling by a power of two is exact
        waveform = waveform * 2.0 ** -math.frexp(float(peak))[1]
    waveform = waveform - waveform.mean(-1, keepdim=True)
    peak = waveform.abs().max()
    # The rounding errors of a constant minus its mean must not be amplified.
    return 0.5 * waveform / (peak + 1e-8) if peak > SILENCE else torch.zeros_like(waveform)


def fit_length(waveform: Tensor, *, num_samples: int) -> Tensor:
    """A waveform cut or zero-padded at its end to (..., num_samples), and scaled to peak 0.5 again."""
    padding = max(0, num_samples - waveform.shape[-1])
    waveform = torch.nn.functional.pad(waveform[..., :num_samples], (0, padding))
    peak = waveform.abs().max()
    return 0.5 * waveform / peak if peak > SILENCE else torch.zeros_like(waveform)


def to_pcm16(waveform: Tensor) -> Tensor:
    """Samples in [-1, 1], of any shape, as 16-bit integers: rounded to multiples of 1/32768, half to even."""
    return (waveform * 32768).round().clamp(-32768, 32767).short()


def from_pcm16(samples: Tensor) -> Tensor:
    """The float32 samples, in [-1, 1), that 16-bit integers stand for."""
    return samples.float() / 32768


def write(path: Path, waveform: Tensor, *, sample_rate: int) -> None:
    """Writes a WAV file of 16-bit PCM atomically, with this program's name in it for :func:`is_ours`.

    Args:
        path: the file.
        waveform: the samples in [-1, 1], (samples,) or (channels, samples).
        sample_rate: the sample rate in Hz.

    Raises:
        UserError: if a sample is not a finite number; nothing is written then.
    """
    import soundfile

    if not waveform.isfinite().all():
        raise UserError(
            f"{path} is not written, because its sound has samples that are not finite numbers; use another model, or"
            " another guidance scale"
        )
    samples = to_pcm16(waveform.detach()).cpu().numpy().T
    num_channels = 1 if samples.ndim == 1 else samples.shape[1]
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", sample_rate, num_channels, format="WAV", subtype="PCM_16") as file:
        file.software = _SOFTWARE
        file.write(samples)
    with atomic_write(path) as partial:  # unlike libsndfile's, Python's errors tell a full disk
        partial.write_bytes(content.getvalue())


def is_ours(path: Path) -> bool:
    """Whether :func:`write` wrote the file; False for a file that cannot be read as audio."""
    try:
        with open_sound(path) as file:
            return str(file.software).startswith(_SOFTWARE)
    except UserError:
        return False


def decode(path: Source, select: Callable[[Samples], Samples], *, kept: int) -> tuple[Samples, int]:
    """Decodes a file block by block.

    Args:
        path: the file.
        select: a function from a block of samples (frames, channels) to the samples to keep, (frames, kept).
        kept: the number of channels that ``select`` keeps.

    Returns:
        The samples that were kept, (frames, kept), and the sample rate of the file in Hz.
    """
    import soundfile

    with open_sound(path) as file:
        rate, frames = int(file.samplerate), int(file.frames)
        if not RATES[0] <= rate <= RATES[1]:
            raise UserError(
                f"{path} has a sample rate of {rate} Hz, where {RATES[0]} to {RATES[1]} Hz are supported; {REMEDY}"
            )
        if frames >= _UNKNOWN:
            raise UserError(
                f"{path} does not say how long it is, as an encoder leaves it that writes to a pipe; {REMEDY}"
            )
        if frames > min(MOST_SECONDS * rate, MOST_FRAMES) or frames * kept > 2 * MOST_FRAMES:
            raise UserError(
                f"{path} is too long ({frames} samples of {kept} channels at {rate} a second), since at most an hour is"
                f" read, and {MOST_FRAMES} samples of two channels; cut it"
            )
        if text := missing_bytes(file, path):
            raise UserError(f"{path} is not whole ({text}); {REMEDY}")
        blocks: list[Samples] = []
        num_frames = max(1, _BLOCK // file.channels)
        try:
            while len(block := file.read(num_frames, dtype="float32", always_2d=True)):
                blocks.append(select(_finite(block, path)))
        except (soundfile.SoundFileError, OSError) as error:
            raise UserError(f"{path} cannot be read as audio ({error}); {REMEDY}") from error
    if not blocks:
        raise UserError(f"{path} has no samples; {REMEDY}")
    if text := missing_frames(sum(map(len, blocks)), frames, rate, path):
        raise UserError(f"{path} is not whole ({text}); {REMEDY}")
    return np.concatenate(blocks), rate


def _finite(samples: Samples, path: Source) -> Samples:
    if not np.isfinite(samples).all():
        raise UserError(f"{path} has samples that are not finite numbers; {REMEDY}")
    return samples


def select_channels(samples: Samples, num_channels: int, channels: Channels) -> Samples:
    """The samples of a clip, (frames, num_channels), from samples of a file, (frames, channels of the file)."""
    if channels == "mean":
        mean = samples.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        return mean.repeat(num_channels, axis=1)
    return samples[:, [min(channel, samples.shape[1] - 1) for channel in range(num_channels)]]
