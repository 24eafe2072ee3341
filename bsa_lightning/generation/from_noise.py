"""Captions to sound with any model: shared by scoring, ``predict`` and ``generate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bsa_lightning.data.order import seeded
from bsa_lightning.generation.samplers import DDIM, Sampler
from bsa_lightning.models.base import Codec, Conditioning, Denoiser
from bsa_lightning.models.predictor import predictor

_DDIM = DDIM()


def noise_of(clips: Sequence[int], *, seed: int, shape: Sequence[int]) -> Tensor:
    """Noise (len(clips), *shape) that depends on the seed and each clip's number alone, not on batches or ranks."""
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
    on_step: Callable[[int], None] | None = None,
    sampler: Sampler = _DDIM,
) -> Tensor:
    """Clean scaled latents, shaped like ``noise``; DDIM is what students are made for."""
    denoise = predictor(denoiser, conditioning, null=null, guidance_scale=guidance_scale)
    return sampler(denoise, denoiser.schedule, noise, num_steps, on_step)


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
    """Waveforms (batch, samples) in [-1, 1] at the codec's rate."""
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
