"""The codec of Tango and AudioLDM: waveform <-> log-mel spectrogram <-> scaled latent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.base import Codec, Posterior
from bsa_lightning.models.mel import HOP_LENGTH, NUM_BANDS, GriffinLim, LogMel
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.provenance import INDEX, is_integer, is_number

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from bsa_lightning.models.patch_autoencoder import PatchAutoencoder

_SAMPLE_RATE = 16_000


def latent_frames(sample_size: int | Sequence[int]) -> int:
    """The number of frames of a latent, from a UNet's ``sample_size``, which is that number or (frames, bands)."""
    return sample_size if isinstance(sample_size, int) else sample_size[0]


class MelCodec(Codec):
    """A variational autoencoder of log-mel spectrograms, and a vocoder.

    Latents are (channels, frames, bands), scaled by the autoencoder's ``scaling_factor``.

    Args:
        vae: the autoencoder of log-mel spectrograms (batch, 1, frames, 64).
        vocoder: the module that turns log-mel spectrograms (batch, frames, 64) into waveforms.
        num_frames: the number of spectrogram frames of a clip, 100 per second at 16 kHz.
        fingerprint: the digest of everything that the latents depend on.
    """

    def __init__(
        self, vae: AutoencoderKL | PatchAutoencoder, vocoder: nn.Module, *, num_frames: int, fingerprint: str
    ) -> None:
        super().__init__()
        self.vae = vae
        self.vocoder = vocoder
        self.sample_rate = _SAMPLE_RATE
        self.log_mel = LogMel(self.sample_rate)
        self.num_samples = num_frames * HOP_LENGTH
        factor = _factor(vae)
        self.latent_shape = (vae.config.latent_channels, num_frames // factor, NUM_BANDS // factor)
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path) -> MelCodec:
        """Reads ``vae/`` and ``vocoder/`` of a model folder, in float32; without ``vocoder/``, uses Griffin-Lim.

        The length of a clip follows from the UNet's ``sample_size``.

        Raises:
            UserError: if a part cannot be read, or is not for log-mel spectrograms of 64 bands at 16 kHz.
        """
        model = ModelFolder(folder)
        frames = latent_frames(sample_size(model))
        vae = _read_autoencoder(model)
        _check_vae(vae, folder / "vae" / "config.json")
        vocoder = _read_vocoder(model) if _has_vocoder(model) else GriffinLim()
        return cls(vae, vocoder, num_frames=frames * _factor(vae), fingerprint=model.fingerprint("vae"))

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


def sample_size(model: ModelFolder) -> int | list[int]:
    """The ``sample_size`` of a folder's UNet: the number of frames of a latent, or [frames, bands].

    Raises:
        UserError: if the configuration does not contain one of the two.
    """
    found: Any = model.json("unet/config.json").get("sample_size")
    both = isinstance(found, list) and len(found) == 2 and all(is_integer(size, at_least=1) for size in found)
    if not both and not is_integer(found, at_least=1):
        raise UserError(
            f"sample_size is {found} in {model.path / 'unet' / 'config.json'}, but must be the frames of a latent, or"
            " its frames and its bands, each at least 1; correct it"
        )
    return found


def _factor(vae: AutoencoderKL | PatchAutoencoder) -> int:
    """The number of frames, and of bands, of the spectrogram for each of the latent."""
    return int(vae.config.get("patch_size") or 2 ** (len(vae.config.block_out_channels) - 1))


def _read_autoencoder(model: ModelFolder) -> AutoencoderKL | PatchAutoencoder:
    """Reads ``vae/``, an ``AutoencoderKL`` or a :class:`PatchAutoencoder`."""
    from diffusers import AutoencoderKL

    from bsa_lightning.models.patch_autoencoder import PatchAutoencoder

    linear = model.json("vae/config.json").get("_class_name") == PatchAutoencoder.__name__
    return model.network(PatchAutoencoder if linear else AutoencoderKL, "vae")


def _check_vae(vae: AutoencoderKL | PatchAutoencoder, path: Path) -> None:
    """Checks that an autoencoder is for log-mel spectrograms and that its latents are scaled but not shifted."""
    config = vae.config
    if (config.in_channels, config.out_channels) != (1, 1):
        raise UserError(
            f"{path} has {config.in_channels} channels in and {config.out_channels} out, but log-mels have 1; name the"
            " autoencoder of a text-to-audio model"
        )
    factor = config.scaling_factor
    if not is_number(factor, at_least=0) or factor == 0:
        raise UserError(f"scaling_factor is {factor} in {path}, but must be a number above 0; correct it")
    for name in ("shift_factor", "latents_mean", "latents_std"):
        if config.get(name) is not None:
            raise UserError(f"{name} is {config[name]} in {path}, but only a scaling_factor is supported")


def _read_vocoder(model: ModelFolder) -> nn.Module:
    """Reads ``vocoder/``, a HiFi-GAN or an :class:`ISTFTVocoder`, and checks that it fits the log-mel spectrograms."""
    from transformers import SpeechT5HifiGan

    from bsa_lightning.models.istft_vocoder import ISTFTVocoder

    folder, config = model.path / "vocoder", model.json("vocoder/config.json")
    rate, bands = config.get("sampling_rate"), config.get("model_in_dim")
    if (rate, bands) != (_SAMPLE_RATE, NUM_BANDS):
        raise UserError(
            f"{folder} makes {rate} Hz of {bands} bands, but only {_SAMPLE_RATE} Hz of {NUM_BANDS} bands are supported;"
            " name another model"
        )
    vocoder: nn.Module
    if config.get("_class_name") == ISTFTVocoder.__name__:
        vocoder = model.network(ISTFTVocoder, "vocoder")
        hop = int(vocoder.config.hop_length)  # type: ignore[union-attr,arg-type]
    else:
        vocoder = model.network(SpeechT5HifiGan, "vocoder")
        hop = math.prod(vocoder.config.upsample_rates)  # type: ignore[union-attr,arg-type]
    if hop != HOP_LENGTH:
        raise UserError(
            f"{folder} makes {hop} samples of each frame, but only {HOP_LENGTH} are supported; name another model"
        )
    return vocoder


def _has_vocoder(model: ModelFolder) -> bool:
    """Whether the folder has a vocoder.

    Raises:
        UserError: if its index names a vocoder that is missing; Griffin-Lim would not be the model's sound.
    """
    named = model.json(INDEX).get("vocoder") if (model.path / INDEX).is_file() else None
    if not model.has("vocoder") and isinstance(named, list) and any(named):
        raise UserError(f"{model.path} names a vocoder in {INDEX}, but has no vocoder/; copy the folder again")
    return model.has("vocoder")
