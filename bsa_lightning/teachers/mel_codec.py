"""Waveform <-> scaled latent by way of the log-mel: Tango's AutoencoderKL and a vocoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bsa_lightning.errors import UserError
from bsa_lightning.files import read_json
from bsa_lightning.teachers.base import Codec, Posterior
from bsa_lightning.teachers.hashing import sha256_of
from bsa_lightning.teachers.mel import HOP_LENGTH, NUM_BANDS, GriffinLim, LogMel

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_SAMPLE_RATE = 16_000


def latent_frames(sample_size: int | Sequence[int]) -> int:
    """Frames of a latent, from a UNet's ``sample_size``: those alone, or (frames, bands)."""
    return sample_size if isinstance(sample_size, int) else sample_size[0]


class MelCodec(Codec):
    """Latents are time x mel band, scaled by the autoencoder's ``scaling_factor``.

    Args:
        vae: on log-mels (batch, 1, frames, 64).
        vocoder: log-mels (batch, frames, 64) to waveforms.
        num_frames: of a clip; 100 a second at 16 kHz.
        fingerprint: of everything that decides the latent.
    """

    def __init__(self, vae: AutoencoderKL, vocoder: nn.Module, *, num_frames: int, fingerprint: str) -> None:
        super().__init__()
        self.vae = vae
        self.vocoder = vocoder
        self.sample_rate = _SAMPLE_RATE
        self.log_mel = LogMel(self.sample_rate)
        self.num_samples = num_frames * HOP_LENGTH
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.latent_shape = (vae.config.latent_channels, num_frames // factor, NUM_BANDS // factor)
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path) -> MelCodec:
        """Reads ``vae/`` and, where there is one, ``vocoder/`` (else Griffin-Lim), in float32.

        The length of a clip is that of the UNet's ``sample_size``: latent frames, or (latent frames, bands).
        """
        from diffusers import AutoencoderKL
        from transformers import SpeechT5HifiGan

        vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False).eval()
        vocoder: nn.Module
        if (folder / "vocoder").is_dir():
            config = read_json(folder / "vocoder" / "config.json")
            if (config["sampling_rate"], config["model_in_dim"]) != (_SAMPLE_RATE, NUM_BANDS):
                raise UserError(
                    f"{folder / 'vocoder'} makes {config['sampling_rate']} Hz of {config['model_in_dim']} bands, but"
                    f" only {_SAMPLE_RATE} Hz of {NUM_BANDS} bands are understood here; name another model"
                )
            vocoder = SpeechT5HifiGan.from_pretrained(folder / "vocoder", dtype=torch.float32).eval()
        else:
            vocoder = GriffinLim()
        frames = latent_frames(read_json(folder / "unet" / "config.json")["sample_size"])
        num_frames = frames * 2 ** (len(vae.config.block_out_channels) - 1)
        return cls(vae, vocoder, num_frames=num_frames, fingerprint=sha256_of(folder / "vae"))

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Posterior:
        posterior = self.vae.encode(self.log_mel(waveform)[:, None]).latent_dist
        scale = self.vae.config.scaling_factor
        return Posterior(scale * posterior.mean, scale * posterior.std)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        log_mel = self.vae.decode(x / self.vae.config.scaling_factor).sample
        # HiFi-GAN's first upsampler adds 32 samples at the end (16-wide kernel, stride 5).
        waveform: Tensor = self.vocoder(log_mel[:, 0])[..., : self.num_samples]
        return waveform.clamp(-1.0, 1.0)
