"""The codec of Stable Audio Open and TangoFlux: stereo waveform <-> latent; and the length of its clips."""

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
from bsa_lightning.models.provenance import is_integer, is_number

if TYPE_CHECKING:
    from diffusers import AutoencoderOobleck

_CONFIGS = ("transformer/config.json", "vae/config.json")


@dataclass(frozen=True)
class Length:
    """The length of the clips of a model.

    Args:
        seconds: the duration that the network is conditioned on.
        num_samples: the number of samples per channel of a clip.
        padded: the number of samples per channel that a latent represents; its length is always the same.
    """

    seconds: float
    num_samples: int
    padded: int

    @classmethod
    def from_folder(cls, folder: Path, *, frames_entry: str = "sample_size") -> Self:
        """The length in the folder's provenance (``seconds``), else the length that a latent represents.

        Args:
            folder: the model folder.
            frames_entry: the entry of the transformer's configuration with the frames of a latent.

        Raises:
            UserError: if that is more than a latent represents, or a configuration does not give the latent's length.
        """
        model = ModelFolder(folder)
        model.require(*_CONFIGS)
        transformer, vae = (model.json(name) for name in _CONFIGS)
        frames, rate, ratios = transformer.get(frames_entry), vae.get("sampling_rate"), vae.get("downsampling_ratios")
        if not (
            is_integer(frames, at_least=1)
            and is_integer(rate, at_least=1)
            and isinstance(ratios, list)
            and all(is_integer(ratio, at_least=1) for ratio in ratios)
        ):
            raise UserError(
                f"{frames_entry} is {frames} in {folder / _CONFIGS[0]}, sampling_rate is {rate} and downsampling_ratios"
                f" is {ratios} in {folder / _CONFIGS[1]}, but they must be whole numbers of at least 1; correct them"
            )
        padded = frames * math.prod(ratios)
        longest = padded / rate
        seconds = provenance.read(folder).get("seconds")
        if seconds is None:
            return cls(longest, padded, padded)
        if not is_number(seconds, at_least=1 / rate) or seconds > longest:
            raise UserError(
                f"seconds is {seconds} in {folder / provenance.PROVENANCE}, but must be above 0 and at most {longest:g}"
            )
        return cls(float(seconds), int(seconds * rate), padded)


class OobleckCodec(Codec):
    """A variational autoencoder of stereo waveforms, with latents (channels, frames) that are not scaled.

    Args:
        vae: the autoencoder of waveforms (batch, 2, samples).
        length: the length of clips; they are padded with silence to the length that a latent represents.
        fingerprint: the digest of everything that the latents depend on.
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
            UserError: if it cannot be read, or is not for two channels.
        """
        from diffusers import AutoencoderOobleck

        model = ModelFolder(folder)
        with warnings.catch_warnings():
            # diffusers builds it with a function that torch has deprecated.
            warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
            vae = model.network(AutoencoderOobleck, "vae")
        if vae.config.audio_channels != cls.num_channels:
            raise UserError(
                f"audio_channels is {vae.config.audio_channels} in {folder / 'vae' / 'config.json'}, but only"
                f" {cls.num_channels} are supported; name another model"
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
