"""A model that writes wav files for captions, for ``lightning generate`` and ``lightning predict``."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from bsa_lightning.common.errors import UserError
from bsa_lightning.data import audio
from bsa_lightning.generation.text_to_audio import TextToAudio, check_settings
from bsa_lightning.models.loading import read_provenance

_log = logging.getLogger(__name__)


class WavWriter(TextToAudio):
    """A model or student that writes the sound that it generates to wav files.

    Args:
        model: the folder of a model or student, a hub id, or "tiny" for the built-in teacher.
        num_steps: the number of steps of the sampler, at least 1; ``None`` takes what the model was made for.
        guidance_scale: the guidance scale of the sampler, at least 0; ``None`` takes what the model was made for.
        seed: the seed of the noise, at least 0.

    Raises:
        UserError: if there is no such model, or a setting is out of its range.
    """

    def __init__(
        self, model: str, *, num_steps: int | None = None, guidance_scale: float | None = None, seed: int = 0
    ) -> None:
        check_settings(num_steps=num_steps, guidance_scale=guidance_scale, seed=seed)
        super().__init__(model)
        self.num_steps, self.guidance_scale, self.seed = num_steps, guidance_scale, seed
        self.settings_of_sampler(num_steps=num_steps, guidance_scale=guidance_scale)
        is_student = "weighting" in read_provenance(self.folder)
        if is_student and num_steps not in (None, made_for := self.sampling.num_steps):
            _log.warning(
                "%s is a student that was made for %d steps, so that its sound in %d steps is worse", self.folder,
                made_for, num_steps,
            )  # fmt: skip

    @staticmethod
    def paths(folder: Path, captions: Sequence[str], numbers: Sequence[int]) -> list[Path]:
        """Returns the paths of the files that :meth:`write` writes.

        Args:
            folder: the folder of the files.
            captions: the captions.
            numbers: the number of each clip.

        Raises:
            UserError: if a file exists that was not written by this project.
        """
        paths = [folder / _file_name(number, caption) for number, caption in zip(numbers, captions, strict=True)]
        for path in paths:
            if path.exists() and not audio.is_ours(path):
                raise UserError(f"{path} is there already and was not made here; name another folder with --out")
        return paths

    def write(self, folder: Path, captions: Sequence[str], numbers: Sequence[int]) -> list[Path]:
        """Generates a clip of each caption, writes it to ``<folder>/<number>-<caption>.wav`` in 16 bit, returns paths.

        Args:
            folder: the folder of the files.
            captions: the captions.
            numbers: the number of each clip, which decides its noise.

        Raises:
            UserError: if a file exists that was not written by this project.
        """
        sound = self(
            captions,
            num_steps=self.num_steps,
            guidance_scale=self.guidance_scale,
            seed=self.seed,
            numbers=numbers,
        )
        paths = self.paths(folder, captions, numbers)
        for path, waveform in zip(paths, sound.audios, strict=True):
            audio.write(path, torch.from_numpy(waveform), sample_rate=sound.sample_rate)
        return paths


def _file_name(number: int, caption: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")
    return f"{number:04d}-{words[:60]}".rstrip("-") + ".wav"
