"""Waveform <-> latent without a mel: Stable Audio's stereo autoencoder, and how long its clips are."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from bsa_lightning.errors import UserError
from bsa_lightning.files import read_json
from bsa_lightning.teachers.base import Codec, Posterior, require
from bsa_lightning.teachers.hashing import sha256_of

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
            UserError: if the latent does not hold as much.
        """
        require(folder, *_CONFIGS)
        transformer, vae = (read_json(folder / name) for name in _CONFIGS)
        padded = transformer["sample_size"] * math.prod(vae["downsampling_ratios"])
        longest = padded / vae["sampling_rate"]
        provenance = folder / "provenance.json"
        seconds = read_json(provenance).get("seconds") if provenance.is_file() else None
        if seconds is None:
            return cls(longest, padded, padded)
        if not isinstance(seconds, int | float) or not 1 / vae["sampling_rate"] <= seconds <= longest:
            raise UserError(f"seconds is {seconds} in {provenance}, but must be above 0 and at most {longest:g}")
        return cls(float(seconds), int(seconds * vae["sampling_rate"]), padded)


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
        """Reads ``vae/`` of a model folder, in float32."""
        from diffusers import AutoencoderOobleck

        with warnings.catch_warnings():
            # The library builds it with a function that torch wants to replace.
            warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
            vae = AutoencoderOobleck.from_pretrained(
                folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False
            ).eval()
        return cls(vae, length=length, fingerprint=f"{sha256_of(folder / 'vae')}-{length.num_samples}")

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Posterior:
        posterior = self.vae.encode(nn.functional.pad(waveform, (0, self.padding))).latent_dist
        return Posterior(posterior.mean, posterior.std)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        waveform: Tensor = self.vae.decode(x).sample[..., : self.num_samples]
        return waveform.clamp(-1.0, 1.0)
