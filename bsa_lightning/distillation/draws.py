"""The random numbers of a training step, as a pure function of seed, step and rank.

Two runs that differ in their weighting alone see the same clips, times and noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.data.order import seeded


class Draws(NamedTuple):
    """The random numbers of one batch; the noise is on the device of the latents, all else on the CPU."""

    uniform: Tensor
    """The draws of the times, (batch,) float64 in [0, 1), which are mapped to the grid of the round."""
    eps: Tensor
    """The noise eps of z_t, (batch, *latent_shape)."""
    posterior_noise: Tensor
    """The noise that samples the latent from the codec's posterior, (batch, *latent_shape)."""
    keep_caption: Tensor
    """Whether the caption of a clip is kept, (batch,) bool; dropped captions are replaced by the empty caption."""
    guidance: Tensor
    """The draws of the guidance scales, (batch,) in [0, 1), as positions in the range of a mode that draws them."""
    seed: int
    """The seed of everything else that is random in the step; see :func:`seed_networks`."""


def draw(*, seed: int, step: int, micro_batch: int, rank: int, latents: Tensor, caption_dropout: float = 0.0) -> Draws:
    """Returns the random numbers of a batch; they are drawn on the CPU, so that they are the same on every device.

    Args:
        seed: the seed of the run.
        step: the number of updates so far; -1 in a validation.
        micro_batch: the index of the batch among those that gradients are accumulated over.
        rank: the rank of this process.
        latents: a tensor (batch, *latent_shape) on the device that the noise is moved to.
        caption_dropout: the probability, from 0 to 1, that a caption is dropped.
    """
    generator = seeded(seed, step, micro_batch, rank)
    shape, device = latents.shape, latents.device

    def noise() -> Tensor:
        # From page-locked memory, a GPU copies while the CPU goes on.
        drawn = torch.randn(shape, generator=generator, pin_memory=device.type == "cuda")
        return drawn.to(device, non_blocking=True)

    return Draws(
        uniform=torch.rand(shape[0], generator=generator, dtype=torch.float64),
        eps=noise(),
        posterior_noise=noise(),
        keep_caption=torch.rand(shape[0], generator=generator) >= caption_dropout,
        guidance=torch.rand(shape[0], generator=generator),
        seed=generator.initial_seed(),
    )


def seed_networks(seed: int, device: torch.device) -> None:
    """Seeds what is random inside a network, such as dropout, on the CPU and on the device.

    It does so faster than ``torch.manual_seed``, which records a stack trace for each kind of device that is missing.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
