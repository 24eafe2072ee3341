"""Captions to wav files, with one model: what ``generate`` and ``predict`` share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from bsa_lightning.data import audio
from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.generation import generate, noise_of
from bsa_lightning.teachers.folder import load_teacher


class Sounds(nn.Module):
    """A model folder, ready to make sound.

    Args:
        model: folder of a model or student, or "tiny" for the built-in teacher.
        num_steps: of the sampler; none takes what the model was made for.
        guidance_scale: of the sampler; none takes what the model was made for.
        seed: of the noise. Clip by clip it is a function of the seed and the clip's number alone.
    """

    def __init__(
        self, model: str, *, num_steps: int | None = None, guidance_scale: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        teacher = load_teacher(model)
        self.denoiser, self.conditioner, self.codec = teacher.denoiser, teacher.conditioner, teacher.codec
        self.num_steps = teacher.sampling.num_steps if num_steps is None else num_steps
        self.guidance_scale = teacher.sampling.scale(guidance_scale)
        self.seed = seed
        if self.num_steps < 1:
            raise UserError(f"the number of steps is {self.num_steps}, but must be at least 1")

    @torch.no_grad()
    def write(self, folder: Path, captions: Sequence[str], numbers: Sequence[int]) -> list[Path]:
        """Makes one clip a caption and writes each to ``<folder>/<number>-<caption>.wav``, 16 bit."""
        device = next(self.denoiser.parameters()).device
        noise = noise_of(numbers, seed=self.seed, shape=self.codec.latent_shape)
        waveforms = generate(
            denoiser=self.denoiser,
            codec=self.codec,
            conditioning=self.conditioner(captions).to(device),
            null=self.conditioner.null().to(device),
            guidance_scale=self.guidance_scale,
            num_steps=self.num_steps,
            noise=noise.to(device),
        )
        paths = [folder / _file_name(number, caption) for number, caption in zip(numbers, captions, strict=True)]
        for path, waveform in zip(paths, waveforms, strict=True):
            audio.write(path, waveform.cpu(), sample_rate=self.codec.sample_rate)
        return paths


def _file_name(number: int, caption: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")
    return f"{number:04d}-{words[:60]}".rstrip("-") + ".wav"
