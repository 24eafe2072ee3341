"""What is random in a training step, as a pure function of (seed, step, rank): two weightings see the same draws."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.data.order import seeded


class Draws(NamedTuple):
    """The random numbers of one batch."""

    uniform: Tensor
    """(batch,) float64 in [0, 1): the time, whatever the round's grid."""
    eps: Tensor
    """(batch, *latent_shape): the noise of z_t."""
    posterior_noise: Tensor
    """(batch, *latent_shape): for sampling the latent anew from its posterior."""
    keep_caption: Tensor
    """(batch,) bool: False where the caption is dropped."""
    guidance: Tensor
    """(batch,) in [0, 1): where in its range a clip's guidance scale lies."""
    seed: int
    """For whatever else is random in the step, see :func:`seed_networks`."""


def draw(*, seed: int, step: int, micro_batch: int, rank: int, latents: Tensor, caption_dropout: float = 0.0) -> Draws:
    """Draws for a batch shaped like ``latents``, on the CPU (so that every device sees the same), then moved there."""
    generator = seeded(seed, step, micro_batch, rank)
    shape, device = latents.shape, latents.device
    return Draws(
        uniform=torch.rand(shape[0], generator=generator, dtype=torch.float64).to(device),
        eps=torch.randn(shape, generator=generator).to(device),
        posterior_noise=torch.randn(shape, generator=generator).to(device),
        keep_caption=(torch.rand(shape[0], generator=generator) >= caption_dropout).to(device),
        guidance=torch.rand(shape[0], generator=generator).to(device),
        seed=generator.initial_seed(),
    )


def seed_networks(seed: int, device: torch.device) -> None:
    """For what is random inside a network, such as dropout.

    ``torch.manual_seed`` sees to all kinds of devices, and takes a trace of the stack for each that is not there.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
