"""The wav files of a run to listen to: the first clips of every system that it scores."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from bsa_lightning.common.files import write_json
from bsa_lightning.data import audio
from bsa_lightning.data.clips import Clips
from bsa_lightning.evaluation.systems import System


class KeptSamples:
    """Writes the first clips of a system to ``<run>/samples/``, and the reference of each to a folder beside them.

    Args:
        run_folder: the folder of the run.
        system: the system that has made the clips.
        clips: the held-out clips.
        num_samples: the number of clips to keep, the first ones; at least 0.
        sample_rate: the sample rate of generated sound, in Hz.
    """

    def __init__(self, run_folder: Path, system: System, clips: Clips, num_samples: int, sample_rate: int) -> None:
        self.folder = run_folder / "samples" / system.name
        self.clips = clips
        self.num_samples = min(num_samples, len(clips))
        self.sample_rate = sample_rate

    def written(self, folder: str | None = None) -> tuple[list[Path], list[str]]:
        """Returns the paths of the system's files, of all ranks, and their captions; writes ``captions.json``.

        Args:
            folder: another folder beside that of the system, such as "reference".
        """
        captions = {self._name(clip): self.clips.captions(clip)[0] for clip in range(self.num_samples)}
        write_json(self.folder.parent / "captions.json", captions)
        paths = sorted(self.folder.with_name(folder or self.folder.name).glob("*.wav"))
        return paths, [captions.get(path.name, path.stem) for path in paths]

    def _name(self, clip: int) -> str:
        return f"{clip:02d}-{slug(self.clips.captions(clip)[0])}.wav"

    def __call__(self, clip: int, waveform: Tensor) -> None:
        """Writes a clip and its reference.

        Args:
            clip: the number of the clip.
            waveform: the generated sound, (samples,) or (channels, samples), in [-1, 1].
        """
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
    """Returns a caption as a part of a file name: lower-case letters, digits and hyphens, at most 60."""
    return re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")[:60]
