"""Wrong audio files and good ones: see data_faults."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import soundfile
from fault_case import Build, Case
from list_faults import line, reading

from bsa_lightning.data import audio
from bsa_lightning.data.captions import TangoManifest

RATE = 16_000
SOUND = 0.3 * np.sin(np.arange(RATE // 2) * 0.2)


def sound(make: Callable[[Path, Random], object], expected: object = None, name: str = "x.wav") -> Build:
    def build(folder: Path, rng: Random) -> Case:
        (folder / "audio").mkdir()
        path = folder / "audio" / name
        make(path, rng)
        (folder / "list.jsonl").write_text(line(name))
        case = reading(TangoManifest, folder / "list.jsonl", folder / "audio")
        return Case(lambda: measure(path), expected, case.words)

    return build


def measure(path: Path) -> tuple[int, float]:
    """Samples at 16 kHz, and the peak that training sees."""
    waveform = audio.read(path, sample_rate=RATE)
    return len(waveform), round(float(audio.normalise(waveform).abs().max()), 2)


def plain(samples=SOUND, rate: int = RATE, **kind: str) -> Callable[[Path, Random], object]:
    return lambda path, rng: soundfile.write(path, samples, rate, **kind)


def raw(*samples: float, num: int = 400) -> Callable[[Path, Random], object]:
    """A file of float32 samples as they are, again and again."""
    return plain(np.array(samples, dtype=np.float32).repeat(num // len(samples)), format="WAV", subtype="FLOAT")


def cut(**kind: str) -> Callable[[Path, Random], object]:
    """A whole file, and then only some part of it, from a fifth to four fifths."""

    def make(path: Path, rng: Random) -> None:
        noise = np.random.default_rng(rng.randrange(1000)).uniform(-0.5, 0.5, 4 * RATE)
        soundfile.write(path, noise, RATE, **kind)
        content = path.read_bytes()
        path.write_bytes(content[: int(rng.uniform(0.2, 0.8) * len(content))])

    return make


def header(place: int, value: int, size: int = 4, samples=SOUND) -> Callable[[Path, Random], object]:
    """A wav file whose header says something else at ``place``."""

    def make(path: Path, rng: Random) -> None:
        soundfile.write(path, samples, RATE, format="WAV", subtype="PCM_16")
        content = bytearray(path.read_bytes())
        content[place : place + size] = value.to_bytes(size, "little")
        path.write_bytes(content)

    return make


def content(of: Callable[[Random], bytes]) -> Callable[[Path, Random], object]:
    return lambda path, rng: path.write_bytes(of(rng))


def without_count(path: Path, rng: Random) -> None:
    """An mp3 that does not say how long it is, so that libsndfile guesses: too long, as it begins with noise."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE)
    soundfile.write(path, np.concatenate([np.zeros(3 * RATE), noise]), RATE, format="MP3", bitrate_mode="VARIABLE")
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 10) :])


def sparse(path: Path, rng: Random) -> None:
    header(40, (1 << 30) - 44)(path, rng)
    with path.open("r+b") as file:
        file.truncate(1 << 30)


RATE_PLACE, CHANNELS_PLACE, SIZE_PLACE = 24, 22, 40

SOUNDS: dict[str, Build] = {
    "text": sound(content(lambda rng: b"no sound\n" * rng.randint(1, 100))),
    "no bytes": sound(content(lambda rng: b"")),
    "random bytes": sound(content(lambda rng: rng.randbytes(rng.randint(1, 5000)))),
    "random bytes after a mark": sound(content(lambda rng: b"RIFF" + rng.randbytes(rng.randint(1, 5000)))),
    "no samples": sound(plain(np.zeros(0))),
    "wav: cut": sound(cut(format="WAV")),
    "flac: cut": sound(cut(format="FLAC"), name="x.flac"),
    "ogg: cut": sound(cut(format="OGG"), name="x.ogg"),
    "mp3: cut": sound(cut(format="MP3"), name="x.mp3"),
    "aiff: cut": sound(cut(format="AIFF"), name="x.aiff"),
    "au: cut": sound(cut(format="AU"), name="x.au"),
    "caf: cut": sound(cut(format="CAF"), name="x.caf"),
    "w64: cut": sound(cut(format="W64"), name="x.w64"),
    "a rate of 0": sound(header(RATE_PLACE, 0)),
    "a rate of 1": sound(header(RATE_PLACE, 1)),
    "a rate of 2,000,000,000": sound(header(RATE_PLACE, 2_000_000_000)),
    "no channel": sound(header(CHANNELS_PLACE, 0, size=2)),
    "60,000 channels": sound(header(CHANNELS_PLACE, 60_000, size=2)),
    "more promised than there is": sound(header(SIZE_PLACE, 1_000_000)),
    "a number that is none": sound(raw(0.1, float("nan"), 0.2)),
    "an infinite number": sound(raw(0.1, float("inf"), 0.2)),
    "nine hours of nothing": sound(sparse),
    "a pipe": sound(lambda path, rng: os.mkfifo(path)),
    "a folder": sound(lambda path, rng: path.mkdir()),
    "a link to nothing": sound(lambda path, rng: path.symlink_to("nothing")),
    "a device": sound(lambda path, rng: path.symlink_to("/dev/zero")),
    "nothing": sound(lambda path, rng: None),
}

GOOD_SOUNDS: dict[str, Build] = {
    **{
        f"{suffix}": sound(plain(**kind), (8000, 0.5), name=f"x.{suffix}")
        for suffix, kind in {
            "aiff": {"format": "AIFF"},
            "AIF": {"format": "AIFF"},
            "au": {"format": "AU"},
            "snd": {"format": "AU"},
            "caf": {"format": "CAF"},
            "oga": {"format": "OGG", "subtype": "VORBIS"},
            "opus": {"format": "OGG", "subtype": "OPUS"},
            "w64": {"format": "W64"},
            "rf64": {"format": "RF64"},
            "sph": {"format": "NIST"},
            "voc": {"format": "VOC"},
            "WAV": {"format": "WAV", "subtype": "PCM_24"},
        }.items()
    },
    **{
        f"a rate of {rate}": sound(plain(np.sin(np.arange(rate // 2) / rate * 2500), rate), (8000, 0.5))
        for rate in (8000, 11_025, 15_999, 22_050, 44_100, 44_101, 48_000, 96_000, 384_000)
    },
    "64 channels": sound(plain(SOUND[:, None].repeat(64, axis=1)), (8000, 0.5)),
    "one sample": sound(plain(np.full(1, 0.5)), (1, 0.0)),
    "near the largest number": sound(raw(3.4e38, -3.4e38), (400, 0.5)),
    "near the largest number, of one sign": sound(raw(3.4e38, 0), (400, 0.5)),
    "as 32-bit integers": sound(plain(SOUND * 2**31, format="WAV", subtype="FLOAT"), (8000, 0.5)),
    "next to nothing": sound(raw(1e-40, -1e-40), (400, 0.0)),
    "a constant": sound(raw(0.25), (400, 0.0)),
    "silence": sound(plain(np.zeros(400)), (400, 0.0)),
    "an mp3 that counts no frames": sound(without_count, (97_344, 0.5), name="x.mp3"),
    "written to a pipe": sound(header(SIZE_PLACE, 0xFFFFFFFF), (8000, 0.5)),
    "something after the sound": sound(
        lambda path, rng: (plain()(path, rng), path.write_bytes(path.read_bytes() + b"LIST\x04\0\0\0abcd")), (8000, 0.5)
    ),
}
