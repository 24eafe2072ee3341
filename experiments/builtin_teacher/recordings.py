"""The real sound that the built-in teacher knows beside soundscapes: crops of ESC-10's recordings, with many captions.

ESC-10 (Piczak 2015) is licensed under CC BY 3.0. The recordings themselves are in no folder of the package.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from torch import Tensor

from bsa_lightning.data.audio import fit_length, normalise, read
from bsa_lightning.data.captions import AudioCapsManifest
from bsa_lightning.data.clips import Clips
from bsa_lightning.data.soundscapes import Soundscapes
from experiments.ear.neighbours import class_of

PHRASES = (
    ("a dog barks", "a dog barking", "a dog is barking", "dogs bark", "a barking dog", "a dog barks a few times"),
    ("rain falls", "rain falling", "heavy rain", "rain pours down", "rain is falling on the roof"),
    ("waves crash", "ocean waves", "sea waves", "waves roll in", "the sea washes ashore", "waves break"),
    ("a baby cries", "a baby crying", "an infant cries", "a crying baby", "a baby is crying", "an infant wails"),
    ("a clock ticks", "a clock ticking", "a ticking clock", "ticking of a clock", "a clock is ticking", "clock ticks"),
    ("a person sneezes", "someone sneezes", "a sneeze", "a man sneezes", "a woman sneezes", "a person sneezing once"),
    ("a helicopter flies", "a helicopter", "a helicopter hovers", "a helicopter flying overhead"),
    ("a chainsaw runs", "a chainsaw", "a chainsaw cuts wood", "a chainsaw revs", "a chainsaw running"),
    ("a rooster crows", "a rooster crowing", "a crowing rooster", "a rooster is crowing", "roosters crow"),
    ("a fire crackles", "a fire crackling", "a crackling fire", "a campfire burns", "wood crackles in a fire"),
)  # fmt: skip
"""What a caption may say of each of the ten classes, in the order of :data:`CLASSES`."""
PLACES = (
    "",
    "",
    "",
    " outdoors",
    " in the distance",
    " nearby",
    " loudly",
    " in a quiet room",
    " at night",
    " on a farm",
)


class Recordings(Clips):
    """Crops of recordings, each with a caption of its class: one of the manifest's, or a phrase with a place.

    Args:
        num_clips: the number of crops.
        seed: of crops and captions.
        csv: the manifest.
        audio_dir: the folder of its files.
    """

    def __init__(
        self,
        num_clips: int,
        seed: int = 0,
        csv: str = "data/esc10/train.csv",
        audio_dir: str = "data/esc10/audio",
    ) -> None:
        self.num_clips = num_clips
        self.seed = seed
        self.manifest = AudioCapsManifest(Path(csv), Path(audio_dir))
        self._waves: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return self.num_clips

    def kind(self, i: int) -> int:
        """The class of clip ``i``."""
        return class_of(self.manifest.captions(i % len(self.manifest))[0])

    def id(self, i: int) -> str:
        return f"{self.manifest.id(i % len(self.manifest))}-{self.seed}-{i}"

    def captions(self, i: int) -> list[str]:
        rng = np.random.default_rng([self.seed, i, 1])
        kind = self.kind(i)
        if rng.random() < 0.5:
            return [str(rng.choice(self._given[kind]))]
        caption = str(rng.choice(PHRASES[kind])) + str(rng.choice(PLACES))
        return [caption[0].upper() + caption[1:]]

    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        rng = np.random.default_rng([self.seed, i, 2])
        # A little slower or faster than it is, which changes the pitch by less than a semitone.
        rate = round(sample_rate * float(rng.choice([0.95, 1.0, 1.0, 1.05])))
        wave = self._wave(i % len(self.manifest), rate)
        crop = wave[:num_samples]
        if rng.random() < 0.5:
            starts = rng.integers(max(1, len(wave) - num_samples // 2), size=8)
            crops = (wave[start : start + num_samples] for start in map(int, starts))
            # Many recordings are padded with silence, which no caption means.
            crop = next((each for each in crops if each.square().sum() > 0.5 * crop.square().sum()), crop)
        waveform = fit_length(normalise(crop), num_samples=num_samples)
        return waveform if num_channels == 1 else waveform.repeat(num_channels, 1)

    @functools.cached_property
    def _given(self) -> dict[int, list[str]]:
        """The captions of the manifest, by class."""
        captions = [(self.kind(i), self.manifest.captions(i)[0]) for i in range(len(self.manifest))]
        return {kind: sorted({caption for other, caption in captions if other == kind}) for kind, _ in captions}

    def _wave(self, place: int, rate: int) -> Tensor:
        if (place, rate) not in self._waves:
            self._waves[place, rate] = read(self.manifest.source(place), sample_rate=rate)
        return self._waves[place, rate]


class SoundscapesAndRecordings(Clips):
    """Soundscapes, then crops of recordings.

    Args:
        num_soundscapes: the number of soundscapes.
        num_recordings: the number of crops.
        seed: of both.
        csv: the manifest of the recordings.
        audio_dir: the folder of its files.
    """

    def __init__(
        self,
        num_soundscapes: int,
        num_recordings: int,
        seed: int = 0,
        csv: str = "data/esc10/train.csv",
        audio_dir: str = "data/esc10/audio",
    ) -> None:
        self.parts: tuple[Clips, Clips] = (
            Soundscapes(num_soundscapes, seed),
            Recordings(num_recordings, seed, csv, audio_dir),
        )

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def id(self, i: int) -> str:
        clips, place = self._find(i)
        return clips.id(place)

    def captions(self, i: int) -> list[str]:
        clips, place = self._find(i)
        return clips.captions(place)

    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        clips, place = self._find(i)
        return clips.waveform(place, sample_rate=sample_rate, num_samples=num_samples, num_channels=num_channels)

    def _find(self, i: int) -> tuple[Clips, int]:
        first = len(self.parts[0])
        return (self.parts[0], i) if i < first else (self.parts[1], i - first)
