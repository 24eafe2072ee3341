"""The autoencoder of the built-in teachers: principal components of the patches of a log-mel spectrogram.

It needs torch and diffusers alone, so that a model folder may carry this file for those who have no more than these.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

# ModelMixin has to be a name of this module: diffusers finds out there how to load what a model_index.json names.
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

_LOG_VARIANCE = -14.0
"""Of the posterior, which is almost a point: a standard deviation of 0.001."""


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """A linear autoencoder in the interface of ``AutoencoderKL``: each square patch becomes its largest components.

    Patches of the same bands share their components, so that each of the ``num_bands / patch_size`` rows of patches has
    a basis of its own. A component is divided by the square root of its standard deviation, halfway between components
    of equal variance, of which the last are noise, and those of the spectrogram, of which the first outweighs all.

    Args:
        latent_channels: the number of components of a patch.
        patch_size: the number of frames and of bands of a patch.
        num_bands: the number of bands of a spectrogram.
        scaling_factor: the factor after which latents have unit variance.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        patch_size: int = 8,
        num_bands: int = 64,
        in_channels: int = 1,  # noqa: ARG002 - for the configuration
        out_channels: int = 1,  # noqa: ARG002
        scaling_factor: float = 1.0,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.patch_size, self.num_rows = patch_size, num_bands // patch_size
        self.mean = nn.Parameter(torch.zeros(self.num_rows, patch_size**2))
        self.basis = nn.Parameter(torch.zeros(self.num_rows, patch_size**2, latent_channels))
        self.scale = nn.Parameter(torch.ones(self.num_rows, latent_channels))

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # noqa: ANN401 - theirs
        """Writes a folder as diffusers does, with this file, which diffusers does not have."""
        super().save_pretrained(save_directory, **kwargs)
        shutil.copyfile(__file__, Path(save_directory) / "patch_autoencoder.py")

    @torch.no_grad()
    def fit(self, spectrograms: Tensor) -> None:
        """Takes the components from spectrograms (n, frames, bands)."""
        patches = self._patches(spectrograms[:, None]).flatten(0, 1).transpose(0, 1).double()
        mean = patches.mean(1)
        centred = patches - mean[:, None]
        variances, vectors = torch.linalg.eigh(centred.mT @ centred / (patches.shape[1] - 1))
        num_components = self.scale.shape[1]
        self.mean.copy_(mean)
        self.basis.copy_(vectors.flip(-1)[..., :num_components])
        self.scale.copy_(variances.flip(-1)[..., :num_components] ** 0.25)

    def encode(self, x: Tensor) -> AutoencoderKLOutput:
        """The posterior over latents (batch, channels, frames / patch, bands / patch), of (batch, 1, frames, bands)."""
        components = torch.einsum("bfrp,rpc->bcfr", self._patches(x) - self.mean, self.basis / self.scale[:, None])
        spread = torch.full_like(components, _LOG_VARIANCE)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(torch.cat([components, spread], dim=1)))

    def decode(self, z: Tensor) -> DecoderOutput:
        """The spectrograms (batch, 1, frames, bands) of latents."""
        patches = torch.einsum("bcfr,rpc->bfrp", z, self.basis * self.scale[:, None]) + self.mean
        side = self.patch_size
        spectrograms = patches.unflatten(3, (side, side)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return DecoderOutput(sample=spectrograms[:, None])

    def _patches(self, x: Tensor) -> Tensor:
        """(batch, frames / patch, rows, patch * patch) of spectrograms (batch, 1, frames, bands)."""
        side = self.patch_size
        split = x[:, 0].unflatten(2, (self.num_rows, side)).unflatten(1, (-1, side))
        return split.transpose(2, 3).flatten(3, 4)
