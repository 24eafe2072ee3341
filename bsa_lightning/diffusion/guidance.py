"""Classifier-free guidance, in the convention of Tango and diffusers: g = 1 is no guidance."""

from __future__ import annotations

import torch
from torch import Tensor

from bsa_lightning.diffusion.process import Prediction, expand


def guide(*, cond: Prediction, uncond: Prediction, scale: float | Tensor) -> Prediction:
    """uncond + g (cond - uncond), in x and eps alike (the maps between them and any raw output are affine).

    ``scale`` is one g for all, or (batch,).
    """
    g = expand(torch.as_tensor(scale, dtype=cond.x.dtype), cond.x)
    return Prediction(
        x=uncond.x + g * (cond.x - uncond.x),
        eps=uncond.eps + g * (cond.eps - uncond.eps),
    )
