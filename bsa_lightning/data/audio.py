"""Audio files to normalised waveforms, as Tango's training reads them."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import whole
from bsa_lightning.data.resampling import resample
from bsa_lightning.data.truncation import lacking, lacking_frames

if TYPE_CHECKING:
    import soundfile

Channels = Literal["first", "mean"]
"""Which of a file's channels are heard: as many as a clip has, from the first on, or the mean of all."""
Samples = NDArray[np.float32]

MOST_SECONDS = 3600
MOST_FRAMES = MOST_SECONDS * 48_000
"""The most frames that are read of a file, of two channels; of more channels, fewer."""
RATES = (100, 1_000_000)
"""Samples a second that a file may have, from and to."""
_SILENCE = 1e-6
_SOFTWARE = "bsa-lightning"
_LOUDEST = 128.0
"""Peak from which on samples are integers that were written as floating-point numbers."""
_LARGE = 2.0**60
"""Samples beyond it are scaled before anything is added up."""
_BLOCK = 1 << 20
"""Samples that are decoded at once, of all channels."""
_MORE_SUFFIXES = ".aif .aifc .snd .oga .opus .wave .sph .nist .iff .8svx .sf .fap"
_NO_SUFFIXES = ("MAT4", "MAT5", "MPC2K", "RAW")
"""Formats whose files say nothing by their suffix, or nothing of their own."""
_REMEDY = "replace it or take it off the list"


@functools.cache
def suffixes() -> frozenset[str]:
    """Suffixes of the formats that the installed libsndfile reads, in lower case."""
    import soundfile

    formats = [name for name in soundfile.available_formats() if name not in _NO_SUFFIXES]
    return frozenset([*(f".{name.lower()}" for name in formats), *_MORE_SUFFIXES.split()])


@dataclass(frozen=True)
class Recording:
    """What can be said about an audio file that becomes a clip."""

    silent: bool
    """The clip has no sound."""
    clipped: bool
    """The sound stays at its highest or lowest value for three samples or more, at full scale."""
    cut: bool
    """The file is longer than the clip."""
    other_channels: bool
    """The clip is silent, but channels of the file that are not heard are not."""


def refuse_channels(channels: object) -> None:
    """Refuses a setting ``channels`` that is neither of the two.

    Raises:
        UserError: naming both.
    """
    if channels not in get_args(Channels):
        raise UserError(f"channels is {channels!r}, but must be {' or '.join(get_args(Channels))}")


def read(path: Path, *, sample_rate: int, num_channels: int = 1, channels: Channels = "first") -> Tensor:
    """A file of any format of libsndfile's at ``sample_rate``, float32 (num_channels, samples).

    One channel is (samples,).

    Args:
        path: a file of at most one hour, of 100 to 1,000,000 samples a second.
        sample_rate: in samples a second.
        num_channels: of the result.
        channels: "first" takes the file's first ``num_channels`` channels, and a file with too few repeats its last;
            "mean" takes the mean of all of them, for each channel of the result.

    Raises:
        UserError: if the file cannot be decoded to its end, is too long or holds no samples.
    """
    samples, rate = _decode(path, lambda block: _heard(block, num_channels, channels), kept=num_channels)
    waveform = resample(torch.from_numpy(np.ascontiguousarray(samples.T)), rate, sample_rate)
    if not waveform.isfinite().all():
        raise UserError(f"{path} holds samples near the largest number there is; {_REMEDY}")
    return waveform[0] if num_channels == 1 else waveform


def recorded(path: Path) -> tuple[Tensor, int]:
    """All channels of a file as they are, float32 (channels, samples), and its samples a second.

    Raises:
        UserError: as :func:`read`, or if the samples are so large that they are no fractions of full scale.
    """
    num_channels = num_channels_of(path)
    samples, rate = _decode(path, lambda block: _heard(block, num_channels, "first"), kept=num_channels)
    if (peak := float(np.abs(samples).max())) > _LOUDEST:
        raise UserError(f"{path} has samples of {peak:g}, where full scale is 1; divide them by their full scale")
    return torch.from_numpy(np.ascontiguousarray(samples.T)), rate


def inspect(path: Path, *, seconds: float, num_channels: int = 1, channels: Channels = "first") -> Recording:
    """Reads a file as :func:`read` does, to say what becomes of it in a clip of ``seconds``.

    Raises:
        UserError: as :func:`read`.
    """
    ranges: list[NDArray[np.float64]] = []

    def select(block: Samples) -> Samples:
        ranges.append(np.stack([block.min(axis=0), block.max(axis=0)]).astype(np.float64))
        return _heard(block, num_channels, channels)

    heard, rate = _decode(path, select, kept=num_channels)
    # As `normalise` and `fit_length` decide, but for what resampling does to a peak.
    mean = heard.mean(axis=0, dtype=np.float64)
    level, beginning = (_peak(part, mean) for part in (heard, heard[: math.ceil(seconds * rate)]))
    silent = level <= _SILENCE or 0.5 * beginning / level <= _SILENCE
    lowest, highest = np.stack(ranges).min(axis=(0, 1)), np.stack(ranges).max(axis=(0, 1))
    return Recording(
        silent=silent,
        clipped=not silent and _is_clipped(heard),
        cut=len(heard) > seconds * rate,
        other_channels=silent and bool((highest - lowest).max() > max(2 * _SILENCE, 4 * level)),
    )


def length_of(path: Path) -> tuple[int, int]:
    """How many samples of each channel a file has by its own account, and how many a second.

    Raises:
        UserError: if it cannot be opened.
    """
    with _open(path) as file:
        return int(file.frames), int(file.samplerate)


def num_channels_of(path: Path) -> int:
    """How many channels a file has.

    Raises:
        UserError: if it cannot be opened.
    """
    with _open(path) as file:
        return int(file.channels)


def normalise(waveform: Tensor) -> Tensor:
    """Tango's normalisation of (..., samples): no mean in any channel, peak 0.5 over all; silence stays silence."""
    peak = waveform.abs().max()
    if peak > _LARGE:  # sums of the largest numbers are infinite; a power of two changes no digit
        waveform = waveform * 2.0 ** -math.frexp(float(peak))[1]
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


def to_pcm16(waveform: Tensor) -> Tensor:
    """Samples in [-1, 1], of any shape, as 16-bit integers: the nearest multiples of 1/32768, an even one of two."""
    return (waveform * 32768).round().clamp(-32768, 32767).short()


def from_pcm16(samples: Tensor) -> Tensor:
    """The float32 samples that a reader finds in a 16-bit file."""
    return samples.float() / 32768


def write(path: Path, waveform: Tensor, *, sample_rate: int) -> None:
    """Writes (samples,) or (channels, samples) in [-1, 1] as 16-bit PCM, under another name until whole.

    The file says which program wrote it, so that :func:`is_ours` can tell.

    Raises:
        UserError: if a sample is not a finite number; nothing is written then.
    """
    import soundfile

    if not waveform.isfinite().all():
        raise UserError(
            f"{path} is not written, because its sound holds samples that are no finite numbers; use another model, or"
            " another guidance scale"
        )
    samples = to_pcm16(waveform.detach()).cpu().numpy().T
    num_channels = 1 if samples.ndim == 1 else samples.shape[1]
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", sample_rate, num_channels, format="WAV", subtype="PCM_16") as file:
        file.software = _SOFTWARE
        file.write(samples)
    with whole(path) as partial:  # Python's own writer says what is wrong with a disk, as libsndfile does not
        partial.write_bytes(content.getvalue())


def is_ours(path: Path) -> bool:
    """Whether :func:`write` wrote the file; one that cannot be read as audio is somebody else's."""
    try:
        with _open(path) as file:
            return str(file.software).startswith(_SOFTWARE)
    except UserError:
        return False


def _open(path: Path) -> soundfile.SoundFile:
    """Opens a regular file: a pipe or a device might never answer."""
    import soundfile

    try:
        if not Path(path).is_file():
            why = "it is a folder" if Path(path).is_dir() else "there is no such regular file"
            raise UserError(f"{path} cannot be read as audio ({why}); {_REMEDY}")
        return soundfile.SoundFile(path)
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: a raw file, which says no rate
        raise UserError(f"{path} cannot be read as audio ({error}); {_REMEDY}") from error


def _decode(path: Path, select: Callable[[Samples], Samples], *, kept: int) -> tuple[Samples, int]:
    """What ``select`` keeps of a file's samples (frames, channels), ``kept`` channels, and the file's rate."""
    import soundfile

    with _open(path) as file:
        rate, frames = int(file.samplerate), int(file.frames)
        if not RATES[0] <= rate <= RATES[1]:
            raise UserError(f"{path} has {rate} samples a second, where {RATES[0]} to {RATES[1]} are read; {_REMEDY}")
        if frames > min(MOST_SECONDS * rate, MOST_FRAMES) or frames * kept > 2 * MOST_FRAMES:
            raise UserError(
                f"{path} is too long ({frames} samples of {kept} channels at {rate} a second), since at most an hour is"
                f" read, and {MOST_FRAMES} samples of two channels; cut it"
            )
        if text := lacking(file, Path(path)):
            raise UserError(f"{path} is not whole ({text}); {_REMEDY}")
        blocks: list[Samples] = []
        num_frames = max(1, _BLOCK // file.channels)
        try:
            while len(block := file.read(num_frames, dtype="float32", always_2d=True)):
                blocks.append(select(_finite(block, path)))
        except (soundfile.SoundFileError, OSError) as error:
            raise UserError(f"{path} cannot be read as audio ({error}); {_REMEDY}") from error
    if not blocks:
        raise UserError(f"{path} holds no samples; {_REMEDY}")
    if text := lacking_frames(sum(map(len, blocks)), frames, rate, Path(path)):
        raise UserError(f"{path} is not whole ({text}); {_REMEDY}")
    return np.concatenate(blocks), rate


def _finite(samples: Samples, path: Path) -> Samples:
    if not np.isfinite(samples).all():
        raise UserError(f"{path} holds samples that are no numbers; {_REMEDY}")
    return samples


def _heard(samples: Samples, num_channels: int, channels: Channels) -> Samples:
    """(frames, num_channels) of (frames, channels of the file)."""
    if channels == "mean":
        mean = samples.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        return mean.repeat(num_channels, axis=1)
    return samples[:, [min(channel, samples.shape[1] - 1) for channel in range(num_channels)]]


def _peak(samples: Samples, mean: NDArray[np.float64]) -> float:
    """The largest distance from the mean of a channel."""
    return float(np.maximum(samples.max(axis=0) - mean, mean - samples.min(axis=0)).max())


def _is_clipped(samples: Samples) -> bool:
    highest, lowest = samples.max(axis=0), samples.min(axis=0)
    at_limit = ((samples == highest) & (highest >= 0.99)) | ((samples == lowest) & (lowest <= -0.99))
    return bool((at_limit[2:] & at_limit[1:-1] & at_limit[:-2]).any())
