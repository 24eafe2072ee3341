"""A denoiser with its conditioning bound, with or without guidance: what the sampling loop and the target call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bsa_lightning.diffusion.guidance import guide
from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.teachers.base import Conditioning, Denoiser


def predictor(
    denoiser: Denoiser, conditioning: Conditioning, *, null: Conditioning | None = None, guidance_scale: float = 1.0
) -> Callable[[Tensor, Tensor], Prediction]:
    """A function of ``z_t`` (batch, ...) and ``t`` (batch,) for the clips of ``conditioning``.

    With a ``null`` conditioning (one clip) and a scale other than 1, both branches run in one batch of twice the size.
    """
    if null is None or guidance_scale == 1.0:
        return lambda z_t, t: denoiser(z_t, t, conditioning)

    both = Conditioning.cat([conditioning, null.repeat(len(conditioning))])

    def guided(z_t: Tensor, t: Tensor) -> Prediction:
        x, eps = denoiser(torch.cat([z_t, z_t]), torch.cat([t, t]), both)
        (x_cond, x_uncond), (eps_cond, eps_uncond) = x.chunk(2), eps.chunk(2)
        return guide(cond=Prediction(x_cond, eps_cond), uncond=Prediction(x_uncond, eps_uncond), scale=guidance_scale)

    return guided
