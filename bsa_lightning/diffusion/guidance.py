"""Classifier-free guidance, in the convention of Tango and diffusers: g = 1 is no guidance."""

from __future__ import annotations

from bsa_lightning.diffusion.process import Prediction


def guide(*, cond: Prediction, uncond: Prediction, scale: float) -> Prediction:
    """uncond + g (cond - uncond), in x and eps alike (the maps between them and any raw output are affine)."""
    return Prediction(
        x=uncond.x + scale * (cond.x - uncond.x),
        eps=uncond.eps + scale * (cond.eps - uncond.eps),
    )
