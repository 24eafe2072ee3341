"""Small pictures of sound for the page: a mel spectrogram as PNG, and a waveform as an SVG path."""

from __future__ import annotations

import math
import os
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bsa_lightning.common.errors import UserError

NUM_BANDS = 64
MAX_COLUMNS = 320
LEVELS = 48
FLOOR_DB, CEILING_DB = -80.0, -5.0
"""The levels of black and white, in dB relative to a sine at full scale; equal for all pictures, to compare them."""

_LOUDEST, _SLOWEST = 1e6, 1000
"""The largest sample and the lowest sample rate, in Hz, that can be drawn."""


@dataclass(frozen=True)
class Wave:
    """The mean of a file's channels, float32 (samples,) in [-1, 1], at ``sample_rate``."""

    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


def read(path: Path) -> Wave:
    """Reads a wav file.

    Raises:
        UserError: if the file cannot be read, is empty, or holds values that cannot be drawn.
    """
    import soundfile

    try:
        if not path.is_file():
            raise UserError(f"{path} is not a file; remove it and score the run again")
        samples, rate = soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{path} cannot be read as audio ({error}); delete it and score the run again") from error
    if len(samples) == 0:
        raise UserError(f"{path} holds no samples; delete it and score the run again")
    if not np.isfinite(samples).all() or abs(samples).max() > _LOUDEST or rate < _SLOWEST:
        raise UserError(f"{path} holds values that are not sound; delete it and score the run again")
    return Wave(samples.mean(1), rate)


def mel_decibels(wave: Wave) -> NDArray[np.float64]:
    """Returns the mel spectrogram, (bands, columns), low bands first, in dB: a sine at full scale sums up to 0 dB."""
    size = 2 ** round(math.log2(0.064 * wave.sample_rate))
    hop = max(size // 8, math.ceil(len(wave.samples) / MAX_COLUMNS))
    padded = np.pad(wave.samples.astype(np.float64), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = np.hanning(size)
    magnitudes = np.abs(np.fft.rfft(frames * window))
    power = _bands(size, wave.sample_rate) @ np.square(magnitudes).T * 4 / (size * np.square(window).sum())
    decibels: NDArray[np.float64] = 10 * np.log10(np.maximum(power, 1e-12))
    return decibels


def mel_png(wave: Wave) -> bytes:
    """Returns the mel spectrogram as a palette PNG, with high bands on top."""
    from matplotlib import colormaps

    scaled = (mel_decibels(wave) - FLOOR_DB) / (CEILING_DB - FLOOR_DB)
    levels = np.rint(scaled.clip(0, 1) * (LEVELS - 1)).astype(np.uint8)
    palette = (colormaps["magma"](np.linspace(0, 1, LEVELS))[:, :3] * 255).astype(np.uint8)
    return _png(levels[::-1], palette)


def outline(wave: Wave, *, width: int = 240, height: int = 40) -> str:
    """Returns the extremes of the waveform as the ``d`` of a closed SVG path, in which full scale fills ``height``."""
    edges = np.linspace(0, len(wave.samples), width + 1).astype(int)
    parts = [wave.samples[a : max(b, a + 1)] for a, b in pairwise(edges)]
    middle = height / 2
    # Half a unit is added on either side, so that silence is visible as a line.
    top = [middle - middle * float(part.max()) - 0.5 for part in parts]
    bottom = [middle - middle * float(part.min()) + 0.5 for part in parts]
    points = [*enumerate(top), *reversed(list(enumerate(bottom)))]
    return "M" + "L".join(f"{x} {round(y, 1):g}" for x, y in points) + "Z"


def _bands(size: int, sample_rate: int) -> NDArray[np.float64]:
    """Returns triangles on the mel scale, (bands, frequencies), with peaks of 1, from 50 Hz to half the sample rate."""
    top = sample_rate / 2
    edges_mel = np.linspace(_mel(50.0), _mel(top), NUM_BANDS + 2)
    edges = 700 * np.expm1(edges_mel / 1127)
    frequencies = np.linspace(0, top, size // 2 + 1)
    below, centre, above = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - below) / (centre - below), (above - frequencies) / (above - centre)
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return triangles


def _mel(hertz: float) -> float:
    return 1127 * math.log1p(hertz / 700)


def _png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Returns a PNG of pixels, (height, width), which index a palette, (colours, 3)."""
    height, width = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
