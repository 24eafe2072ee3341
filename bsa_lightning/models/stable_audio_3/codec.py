"""The codec of Stable Audio 3: stereo waveform <-> latent, both ways deterministic; and the length of its clips."""

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
    from diffusers import AutoencoderSAME

_CONFIGS = ("vae/config.json", "duration_embedder/config.json")
SECONDS = 10.0
"""The length of the clips of a folder whose provenance does not record it, which is the pipeline's default, too."""


@dataclass(frozen=True)
class ClipLength:
    """The length of the clips of a model; the network takes any.

    Args:
        seconds: the duration that the network is conditioned on.
        num_samples: the number of samples per channel of a clip.
        num_frames: the number of frames of a latent, the last of which may represent less sound than a frame does.
        frame: the number of samples per channel that a frame represents.
    """

    seconds: float
    num_samples: int
    num_frames: int
    frame: int

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """The length in the folder's provenance (``seconds``), else 10 s or the longest duration, in whole frames.

        Raises:
            UserError: if that is more than the longest embedded duration, or a configuration does not say what a frame
                represents.
        """
        model = ModelFolder(folder)
        model.require(*_CONFIGS)
        vae, embedder = (model.json(name) for name in _CONFIGS)
        rate, patch, strides = vae.get("sampling_rate"), vae.get("patch_size"), vae.get("encoder_strides")
        if not (
            is_integer(rate, at_least=1)
            and is_integer(patch, at_least=1)
            and isinstance(strides, list)
            and all(is_integer(stride, at_least=1) for stride in strides)
        ):
            raise UserError(
                f"sampling_rate is {rate}, patch_size is {patch} and encoder_strides is {strides} in"
                f" {folder / _CONFIGS[0]}, but they must be whole numbers of at least 1; correct them"
            )
        longest = embedder.get("max_val")
        if not is_number(longest, at_least=1 / rate):
            raise UserError(
                f"max_val is {longest} in {folder / _CONFIGS[1]}, but must be the longest duration in seconds, above 0;"
                " correct it"
            )
        seconds = provenance.read(folder).get("seconds", min(SECONDS, longest))
        if not is_number(seconds, at_least=1 / rate) or seconds > longest:
            raise UserError(
                f"seconds is {seconds} in {folder / provenance.PROVENANCE}, but must be above 0 and at most {longest:g}"
            )
        frame = patch * math.prod(strides)
        return cls(float(seconds), int(seconds * rate), math.ceil(seconds * rate / frame), frame)


class StableAudio3Codec(Codec):
    """An autoencoder of stereo waveforms without noise, with latents (channels, frames) of about unit scale.

    Args:
        vae: the autoencoder of waveforms (batch, 2, samples).
        length: the length of clips; their end is padded with silence to a whole number of frames.
        fingerprint: the digest of everything that the latents depend on.
    """

    num_channels = 2

    def __init__(self, vae: AutoencoderSAME, *, length: ClipLength, fingerprint: str) -> None:
        super().__init__()
        self.vae = vae
        self.sample_rate = vae.config.sampling_rate
        self.num_samples = length.num_samples
        self.padding = length.num_frames * length.frame - length.num_samples
        self.latent_shape = (vae.config.latent_dim, length.num_frames)
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path, *, length: ClipLength) -> Self:
        """Reads ``vae/`` of a model folder, in float32.

        Raises:
            UserError: if it cannot be read, or is not for two channels.
        """
        from diffusers import AutoencoderSAME

        model = ModelFolder(folder)
        with warnings.catch_warnings():
            # diffusers builds it with a function that torch has deprecated.
            warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
            vae = model.network(AutoencoderSAME, "vae")
        if vae.config.audio_channels != cls.num_channels:
            raise UserError(
                f"audio_channels is {vae.config.audio_channels} in {folder / 'vae' / 'config.json'}, but only"
                f" {cls.num_channels} are supported; name another model"
            )
        return cls(vae, length=length, fingerprint=f"{model.fingerprint('vae')}-{length.num_samples}")

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Posterior:
        latents = self.vae.encode(nn.functional.pad(waveform, (0, self.padding))).latents
        return Posterior(latents, torch.zeros_like(latents))

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        waveform: Tensor = self.vae.decode(x).sample[..., : self.num_samples]
        return waveform.clamp(-1.0, 1.0)
