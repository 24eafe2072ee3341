"""Sampling of latents and sound from noise with any model, for scoring, ``predict`` and ``generate``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bsa_lightning.data.order import seeded
from bsa_lightning.generation.samplers import DDIM, Sampler
from bsa_lightning.models.base import Codec, Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.predictor import predictor

_DDIM = DDIM()


def noise_of(clips: Sequence[int], *, seed: int, shape: Sequence[int]) -> Tensor:
    """Returns standard normal noise, (clips, *shape), which depends on the seed and the numbers of the clips alone.

    Args:
        clips: the numbers of the clips, from 0; how they are batched and shared among ranks does not matter.
        seed: the seed of the noise, at least 0.
        shape: the shape of the noise of one clip.
    """
    return torch.stack([torch.randn(*shape, generator=seeded(seed, clip)) for clip in clips])


@torch.no_grad()
def generate_latents(
    *,
    denoiser: Denoiser,
    conditioning: Conditioning,
    null: Conditioning,
    guidance_scale: float,
    num_steps: int,
    noise: Tensor,
    sampler: Sampler = _DDIM,
) -> Tensor:
    """Returns clean scaled latents of the shape of ``noise``.

    Args:
        denoiser: the denoiser.
        conditioning: the captions of the batch.
        null: the conditioning of the empty caption, one clip.
        guidance_scale: the guidance scale that ``predictor`` is given; 1 is no guidance.
        num_steps: the number of steps of the sampler, at least 1.
        noise: standard normal latents, (batch, ...).
        sampler: the sampler; students are made for DDIM.
    """
    denoise = predictor(denoiser, conditioning, null=null, guidance_scale=guidance_scale)
    return sampler(denoise, denoiser.schedule, noise, num_steps)


def generate(
    *,
    denoiser: Denoiser,
    codec: Codec,
    conditioning: Conditioning,
    null: Conditioning,
    guidance_scale: float,
    num_steps: int,
    noise: Tensor,
) -> Tensor:
    """Returns waveforms (batch, samples) in [-1, 1] at the codec's rate; as :func:`generate_latents`, by DDIM."""
    return codec.decode(
        generate_latents(
            denoiser=denoiser,
            conditioning=conditioning,
            null=null,
            guidance_scale=guidance_scale,
            num_steps=num_steps,
            noise=noise,
        )
    )
