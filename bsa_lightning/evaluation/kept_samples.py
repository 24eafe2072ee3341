"""The first clips of every system that a run scores, kept as wav files to listen to."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from bsa_lightning.common.files import write_json
from bsa_lightning.data import audio
from bsa_lightning.data.clips import Clips
from bsa_lightning.evaluation.systems import System


class KeptSamples:
    """Keeps a system's first clips as wav files, with the reference's beside them."""

    def __init__(self, run_folder: Path, system: System, clips: Clips, num_samples: int, sample_rate: int) -> None:
        self.folder = run_folder / "samples" / system.name
        self.clips = clips
        self.num_samples = min(num_samples, len(clips))
        self.sample_rate = sample_rate

    def written(self) -> tuple[list[Path], list[str]]:
        """The system's files of all ranks, and the caption of each, which ``captions.json`` holds for the page."""
        captions = {self._name(clip): self.clips.captions(clip)[0] for clip in range(self.num_samples)}
        write_json(self.folder.parent / "captions.json", captions)
        paths = sorted(self.folder.glob("*.wav"))
        return paths, [captions.get(path.name, path.stem) for path in paths]

    def _name(self, clip: int) -> str:
        return f"{clip:02d}-{slug(self.clips.captions(clip)[0])}.wav"

    def __call__(self, clip: int, waveform: Tensor) -> None:
        name = self._name(clip)
        audio.write(self.folder / name, waveform, sample_rate=self.sample_rate)
        reference = self.folder.parent / "reference" / name
        if not reference.is_file():
            num_channels = 1 if waveform.ndim == 1 else len(waveform)
            wave = self.clips.waveform(
                clip, sample_rate=self.sample_rate, num_samples=waveform.shape[-1], num_channels=num_channels
            )
            audio.write(reference, wave, sample_rate=self.sample_rate)


def slug(caption: str) -> str:
    """A caption as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")[:60]
