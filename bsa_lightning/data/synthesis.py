"""The sound sources of soundscapes: functions that return waveforms at 16 kHz, (samples,), float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000

Wave = NDArray[np.float64]

# Ranges of fundamental frequencies in Hz. Those of one source do not touch, so that the word can be verified.
PITCHES: dict[str, dict[str, tuple[float, float]]] = {
    "beep": {"low": (260, 360), "": (620, 880), "high": (1700, 2500)},
    "buzz": {"low": (70, 100), "": (150, 210), "high": (330, 450)},
    "bell": {"low": (340, 460), "": (800, 1050), "high": (1800, 2300)},
    "hum": {"low": (85, 120), "high": (230, 300)},
}
LENGTHS: dict[str, tuple[float, float]] = {"short": (0.07, 0.10), "": (0.16, 0.22), "long": (0.40, 0.50)}
"""The range of the length of a tone, in seconds."""


def beep(rng: np.random.Generator, *, pitch: str, length: str) -> Wave:
    """A sine with a little second harmonic and soft edges."""
    time = _time(rng.uniform(*LENGTHS[length]))
    phase = 2 * np.pi * rng.uniform(*PITCHES["beep"][pitch]) * time
    return 0.7 * _edges(np.sin(phase) + 0.15 * np.sin(2 * phase), 0.012)


def buzz(rng: np.random.Generator, *, pitch: str, length: str) -> Wave:
    """A band-limited sawtooth."""
    time = _time(rng.uniform(*LENGTHS[length]))
    return 0.55 * _edges(_sawtooth(rng.uniform(*PITCHES["buzz"][pitch]), time, limit=4000), 0.012)


def bell(rng: np.random.Generator, *, pitch: str) -> Wave:
    """Inharmonic partials that ring out, the higher the faster."""
    time = _time(0.9)
    frequency = rng.uniform(*PITCHES["bell"][pitch])
    partials = [(1.0, 1.0), (2.0, 0.5), (2.76, 0.35), (5.40, 0.2)]
    tones = [
        gain * np.exp(-time * (3.5 + 2.0 * ratio)) * np.sin(2 * np.pi * frequency * ratio * time)
        for ratio, gain in partials
        if frequency * ratio < 7500
    ]
    return 0.6 * np.sum(tones, axis=0)


def chirp(rng: np.random.Generator, *, rising: bool) -> Wave:
    """A sine that sweeps about two octaves in a third of a second."""
    time = _time(rng.uniform(0.28, 0.38))
    low, high = rng.uniform(550, 750), rng.uniform(2300, 3000)
    start, end = (low, high) if rising else (high, low)
    seconds = time[-1]
    phase = 2 * np.pi * start * seconds / np.log(end / start) * ((end / start) ** (time / seconds) - 1)
    return 0.7 * _edges(np.sin(phase), 0.02)


def click(rng: np.random.Generator) -> Wave:
    """A few milliseconds of bright noise."""
    time = _time(0.03)
    return 1.2 * _band(rng, len(time), 1800, 7800) * np.exp(-time / 0.004)


def knock(rng: np.random.Generator) -> Wave:
    """A dull thump: a falling low tone and a puff of low noise."""
    time = _time(0.18)
    frequency = rng.uniform(110, 170)
    tone = np.sin(2 * np.pi * frequency * (time + 0.01 * np.exp(-time / 0.02)))
    return 0.9 * tone * np.exp(-time / 0.045) + 0.5 * _band(rng, len(time), 100, 900) * np.exp(-time / 0.02)


def hum(rng: np.random.Generator, *, num_samples: int, pitch: str) -> Wave:
    """A steady tone with a few harmonics."""
    time = np.arange(num_samples) / SAMPLE_RATE
    frequency = rng.uniform(*PITCHES["hum"][pitch])
    return 0.11 * np.sum([np.sin(2 * np.pi * frequency * k * time + 7 * k) / k for k in range(1, 6)], axis=0)


def engine(rng: np.random.Generator, *, num_samples: int) -> Wave:
    """A sawtooth of some 35 Hz with noise that pulses with it."""
    time = np.arange(num_samples) / SAMPLE_RATE
    rate = rng.uniform(24, 34)
    pulse = 0.5 + 0.5 * np.sin(2 * np.pi * rate / 2 * time)
    return 0.10 * _sawtooth(rate, time, limit=1500) + 0.07 * pulse**2 * _band(rng, num_samples, 60, 1200)


def wind(rng: np.random.Generator, *, num_samples: int) -> Wave:
    """Mid-band noise that swells and fades."""
    time = np.arange(num_samples) / SAMPLE_RATE
    swell = 0.55 + 0.45 * np.sin(2 * np.pi * rng.uniform(0.35, 0.6) * time + rng.uniform(0, 2 * np.pi))
    return 0.16 * (_band(rng, num_samples, 200, 700) * swell + 0.6 * _band(rng, num_samples, 700, 1500) * swell**2)


def rain(rng: np.random.Generator, *, num_samples: int) -> Wave:
    """Bright steady noise with scattered drops."""
    drops = np.zeros(num_samples)
    drops[rng.integers(0, num_samples, size=num_samples // 400)] = rng.uniform(1, 5, size=num_samples // 400)
    return 0.045 * _band(rng, num_samples, 2500, 7800) + 0.05 * _shape(drops, 2000, 6500)


def _time(seconds: float) -> Wave:
    return np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _edges(wave: Wave, seconds: float) -> Wave:
    """Raised-cosine fades at both ends."""
    num = int(seconds * SAMPLE_RATE)
    fade = 0.5 - 0.5 * np.cos(np.pi * np.arange(num) / num)
    wave[:num] *= fade
    wave[-num:] *= fade[::-1]
    return wave


def _sawtooth(frequency: float, time: Wave, *, limit: float) -> Wave:
    """The Fourier series of a sawtooth up to ``limit`` Hz."""
    harmonics = np.arange(1, int(limit / frequency) + 1)
    return (np.sin(2 * np.pi * frequency * harmonics[:, None] * time) / harmonics[:, None]).sum(axis=0) * 2 / np.pi


def _band(rng: np.random.Generator, num_samples: int, low: float, high: float) -> Wave:
    """White noise between two frequencies, unit variance."""
    wave = _shape(rng.standard_normal(num_samples), low, high)
    return wave / (wave.std() + 1e-12)


def _shape(wave: Wave, low: float, high: float) -> Wave:
    """A zero-phase band-pass with edges a quarter octave soft."""
    frequency = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE) + 1e-6
    gain = 1 / (1 + (low / frequency) ** 12) / (1 + (frequency / high) ** 12)
    return np.fft.irfft(np.fft.rfft(wave) * gain, n=len(wave))
