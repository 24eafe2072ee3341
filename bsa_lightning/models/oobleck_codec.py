"""Waveform <-> latent without a mel: Stable Audio's stereo autoencoder, and how long its clips are."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.models import provenance
from bsa_lightning.models.base import Codec, Posterior
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.provenance import is_finite, is_whole

if TYPE_CHECKING:
    from diffusers import AutoencoderOobleck

_CONFIGS = ("transformer/config.json", "vae/config.json")


@dataclass(frozen=True)
class Length:
    """How long clips are.

    Args:
        seconds: what the network is told.
        num_samples: what the codec takes and gives, in each channel.
        padded: samples that the latent, always of full length, stands for.
    """

    seconds: float
    num_samples: int
    padded: int

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """The ``seconds`` of the folder's provenance, else all that the latent holds.

        Raises:
            UserError: if the latent does not hold as much, or a configuration does not say how much it holds.
        """
        model = ModelFolder(folder)
        model.require(*_CONFIGS)
        transformer, vae = (model.json(name) for name in _CONFIGS)
        frames, rate, ratios = transformer.get("sample_size"), vae.get("sampling_rate"), vae.get("downsampling_ratios")
        if not (
            is_whole(frames, least=1)
            and is_whole(rate, least=1)
            and isinstance(ratios, list)
            and all(is_whole(ratio, least=1) for ratio in ratios)
        ):
            raise UserError(
                f"sample_size is {frames} in {folder / _CONFIGS[0]}, sampling_rate is {rate} and downsampling_ratios is"
                f" {ratios} in {folder / _CONFIGS[1]}, but they must be whole numbers of at least 1; correct them"
            )
        padded = frames * math.prod(ratios)
        longest = padded / rate
        seconds = provenance.read(folder).get("seconds")
        if seconds is None:
            return cls(longest, padded, padded)
        if not is_finite(seconds, least=1 / rate) or seconds > longest:
            raise UserError(
                f"seconds is {seconds} in {folder / provenance.PROVENANCE}, but must be above 0 and at most {longest:g}"
            )
        return cls(float(seconds), int(seconds * rate), padded)


class OobleckCodec(Codec):
    """Stereo, without a mel; latents (channels, frames) are not scaled.

    Args:
        vae: on waveforms (batch, 2, samples).
        length: of clips; what is shorter than the latent is padded with silence.
        fingerprint: of everything that decides the latent.
    """

    num_channels = 2

    def __init__(self, vae: AutoencoderOobleck, *, length: Length, fingerprint: str) -> None:
        super().__init__()
        self.vae = vae
        self.sample_rate = vae.config.sampling_rate
        self.num_samples = length.num_samples
        self.padding = length.padded - length.num_samples
        self.latent_shape = (vae.config.decoder_input_channels, length.padded // vae.hop_length)
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path, *, length: Length) -> Self:
        """Reads ``vae/`` of a model folder, in float32.

        Raises:
            UserError: if it cannot be read, or is not for stereo.
        """
        from diffusers import AutoencoderOobleck

        model = ModelFolder(folder)
        with warnings.catch_warnings():
            # The library builds it with a function that torch wants to replace.
            warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
            vae = model.network(AutoencoderOobleck, "vae")
        if vae.config.audio_channels != cls.num_channels:
            raise UserError(
                f"audio_channels is {vae.config.audio_channels} in {folder / 'vae' / 'config.json'}, but only"
                f" {cls.num_channels} are understood here; name another model"
            )
        return cls(vae, length=length, fingerprint=f"{model.fingerprint('vae')}-{length.num_samples}")

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Posterior:
        posterior = self.vae.encode(nn.functional.pad(waveform, (0, self.padding))).latent_dist
        return Posterior(posterior.mean, posterior.std)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        waveform: Tensor = self.vae.decode(x).sample[..., : self.num_samples]
        return waveform.clamp(-1.0, 1.0)
