"""A model as one object that generates sound from captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number, check_seed
from bsa_lightning.generation.from_noise import generate, noise_of
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.vocabulary import warn_of_unknown_words


@dataclass(frozen=True)
class Sound:
    """The sound of some captions.

    Args:
        audios: float32 in [-1, 1], (clips, samples), or (clips, channels, samples) where there are several channels.
        sample_rate: the sample rate, in Hz.
    """

    audios: npt.NDArray[np.float32]
    sample_rate: int


class TextToAudio(nn.Module):
    """A model or student, ready to be sampled.

    Args:
        model: the folder of a model or student, a hub id, or "tiny" for the built-in teacher.

    Raises:
        UserError: if there is no such model, or a part of it cannot be read.
    """

    def __init__(self, model: str | Path) -> None:
        super().__init__()
        loaded = load_parts(model)
        self.folder = loaded.folder
        self.denoiser, self.conditioner, self.codec = loaded.denoiser, loaded.conditioner, loaded.codec
        self.sampling = loaded.sampling

    @torch.no_grad()
    def forward(
        self,
        captions: str | Sequence[str],
        *,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
    ) -> Sound:
        """Returns a clip for each caption, sampled by DDIM.

        Args:
            captions: one caption or several; "" is sound without a caption.
            num_steps: the number of steps of the sampler, at least 1; ``None`` takes what the model was made for.
            guidance_scale: g in uncond + g (cond - uncond), from 0 to 1000, where 1 is no guidance; ``None`` takes what
                the model was made for.
            seed: the seed of the noise, at least 0. The noise of a clip is a function of the seed and of the clip's
                number alone.
            numbers: the number of each clip, at least 0; ``None`` numbers them from 0.

        Raises:
            UserError: if a setting is out of its range, or not one that the model can be sampled with.
        """
        captions = [captions] if isinstance(captions, str) else list(captions)
        check_settings(num_steps=num_steps, guidance_scale=guidance_scale, seed=seed)
        steps, scale = self.settings_of_sampler(num_steps=num_steps, guidance_scale=guidance_scale)
        if strangers := [caption for caption in captions if not isinstance(caption, str)]:
            raise UserError(f"captions holds {strangers[0]!r}, but must hold text; give each caption as a str")
        if not captions:
            raise UserError("captions is empty; give at least one caption")
        warn_of_unknown_words(self.folder, captions)
        device = next(self.denoiser.parameters()).device
        numbers = range(len(captions)) if numbers is None else numbers
        noise = noise_of(numbers, seed=seed, shape=self.codec.latent_shape)
        waveforms = generate(
            denoiser=self.denoiser,
            codec=self.codec,
            conditioning=self.conditioner(captions).to(device),
            null=self.conditioner.null().to(device),
            guidance_scale=scale,
            num_steps=steps,
            noise=noise.to(device),
        )
        return Sound(waveforms.cpu().numpy(), self.codec.sample_rate)

    def settings_of_sampler(self, *, num_steps: int | None, guidance_scale: float | None) -> tuple[int, float]:
        """Returns the number of steps and the guidance scale that the sampler is given.

        Args:
            num_steps: the number of steps that was asked for; ``None`` takes what the model was made for.
            guidance_scale: the guidance scale that was asked for; ``None`` takes what the model was made for.

        Raises:
            UserError: if the model cannot be sampled with these settings.
        """
        steps = self.sampling.num_steps if num_steps is None else num_steps
        if steps > (most := self.denoiser.schedule.most_steps):
            check_number("the number of steps", steps, at_most=most)
        return steps, self.sampling.scale(guidance_scale)


def check_settings(*, num_steps: int | None, guidance_scale: float | None, seed: int) -> None:
    """Refuses settings that no model can be sampled with, before a model is loaded.

    Args:
        num_steps: the number of steps, at least 1; ``None`` is not checked.
        guidance_scale: the guidance scale, at least 0; ``None`` is not checked.
        seed: the seed of the noise, at least 0.

    Raises:
        UserError: if a setting is out of its range.
    """
    if num_steps is not None:
        check_number("the number of steps", num_steps, whole=True, at_least=1)
    if guidance_scale is not None:
        check_number("guidance scale", guidance_scale, at_least=0, advice="1 is no guidance")
    check_seed("seed", seed)
