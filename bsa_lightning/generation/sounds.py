"""Captions to wav files, with one model: what ``generate`` and ``predict`` share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number, check_seed
from bsa_lightning.data import audio
from bsa_lightning.generation.generate import generate, noise_of
from bsa_lightning.models.loading import load_model


class Sounds(nn.Module):
    """A model folder, ready to make sound.

    Args:
        model: folder of a model or student, or "tiny" for the built-in teacher.
        num_steps: of the sampler, at least 1; None takes what the model was made for.
        guidance_scale: of the sampler, at least 0; None takes what the model was made for.
        seed: of the noise, at least 0. Clip by clip it is a function of the seed and the clip's number alone.
    """

    def __init__(
        self, model: str, *, num_steps: int | None = None, guidance_scale: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if num_steps is not None:
            check_number("the number of steps", num_steps, whole=True, at_least=1)
        if guidance_scale is not None:
            check_number("guidance scale", guidance_scale, at_least=0, advice="1 is no guidance")
        check_seed("seed", seed)
        teacher = load_model(model)
        self.denoiser, self.conditioner, self.codec = teacher.denoiser, teacher.conditioner, teacher.codec
        self.num_steps = teacher.sampling.num_steps if num_steps is None else num_steps
        self.guidance_scale = teacher.sampling.scale(guidance_scale)
        self.seed = seed
        if self.num_steps > (most := self.denoiser.schedule.most_steps):
            check_number("the number of steps", self.num_steps, at_most=most)

    @staticmethod
    def paths(folder: Path, captions: Sequence[str], numbers: Sequence[int]) -> list[Path]:
        """The files that :meth:`write` makes.

        Raises:
            UserError: if one of them is there and was not made by this project.
        """
        paths = [folder / _file_name(number, caption) for number, caption in zip(numbers, captions, strict=True)]
        for path in paths:
            if path.exists() and not audio.is_ours(path):
                raise UserError(f"{path} is there already and was not made here; name another folder with --out")
        return paths

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
        paths = self.paths(folder, captions, numbers)
        for path, waveform in zip(paths, waveforms, strict=True):
            audio.write(path, waveform.cpu(), sample_rate=self.codec.sample_rate)
        return paths


def _file_name(number: int, caption: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")
    return f"{number:04d}-{words[:60]}".rstrip("-") + ".wav"
