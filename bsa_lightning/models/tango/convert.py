"""Conversion of checkpoints in Tango's original layout to model folders, with each weight used exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json, refuse_existing
from bsa_lightning.models.conversion import (
    TEXT_ENCODER,
    TEXT_FILES,
    filled,
    provenance_of,
    source_folder,
    t5_encoder,
    text_folder,
    write_model,
)
from bsa_lightning.models.model_folder import readable
from bsa_lightning.models.tango import shapes
from bsa_lightning.models.tango.checkpoint import CODEC_FILES, FILES, TangoCheckpoint, read_checkpoint, vae_weights
from bsa_lightning.models.tango.family import TangoFamily
from bsa_lightning.models.unet import UNetDenoiser

_LICENCE = "cc-by-nc-sa-4.0"
"""The licence of declare-lab's weights on the hub."""


def convert_tango(
    src: str,
    dst: Path,
    *,
    text_encoder: str | None = None,
    vae: str | None = None,
    licence: str | None = None,
    on_part: Callable[[str], object] = lambda _: None,
) -> None:
    """Converts a checkpoint to the model folder ``dst``, which is written atomically.

    Args:
        src: the checkpoint: a folder, a hub id, or the short name of a published checkpoint ("tango2").
        dst: the model folder, which must not exist.
        text_encoder: the folder or hub id of T5's configuration and tokenizer; ``None`` is the one that the checkpoint
            names.
        vae: the folder or hub id of the codec; ``None`` is ``src``.
        licence: the licence of the weights; ``None`` is the one in the model card of ``src``.
        on_part: a function that is called with the name of each part after it is written.

    Raises:
        UserError: if a file is missing or parts do not belong together; nothing is written then.
    """
    refuse_existing(dst, setting="dst")
    option = f"SRC; likewise {TEXT_ENCODER} with {', '.join(TEXT_FILES)}, as --text_encoder"
    folder = _folder(src, FILES, option=option)
    codec_folder = folder if vae is None else _folder(vae, CODEC_FILES, option="--vae")
    for front_end in (folder / "stft_config.json", codec_folder / "stft_config.json"):
        _check_front_end(front_end)
    checkpoint = read_checkpoint(folder, codec_folder)
    words = text_folder(text_encoder or checkpoint.text_encoder_name, folder)
    try:
        with readable(folder, "Tango's networks"):
            denoiser, (autoencoder, vocoder), (encoder, tokenizer) = (
                unet(checkpoint),
                codec(checkpoint),
                t5_encoder(checkpoint.text_encoder, words),
            )
    except UserError as error:
        if not isinstance(lacking := error.__cause__, KeyError):
            raise
        raise UserError(f"{src} lacks the weight {lacking.args[0]}; download it again") from error
    family = TangoFamily()
    write_model(
        dst,
        {
            "unet": denoiser.save,
            "vae": lambda partial: autoencoder.save_pretrained(partial / "vae"),  # type: ignore[operator]
            "vocoder": lambda partial: vocoder.save_pretrained(partial / "vocoder"),  # type: ignore[operator]
            "text_encoder": lambda partial: encoder.save_pretrained(partial / "text_encoder"),
            "tokenizer": lambda partial: tokenizer.save_pretrained(partial / "tokenizer"),
        },
        provenance=provenance_of(src, folder, family, published=shapes.PUBLISHED, licence=licence, declared=_LICENCE),
        index=_index(type(tokenizer).__name__),
        family=family,
        source=folder,
        on_part=on_part,
    )


def _folder(src: str, files: Sequence[str], *, option: str) -> Path:
    return source_folder(src, files, published=shapes.PUBLISHED, optional=("stft_config.json",), option=option)


def _check_front_end(path: Path) -> None:
    found = read_json(path) if path.is_file() else shapes.MEL
    if different := sorted(name for name in shapes.MEL if found.get(name) != shapes.MEL[name]):
        raise UserError(
            f"{path} has another {', '.join(different)} than Tango's mel spectrogram, the only one supported"
        )


def unet(checkpoint: TangoCheckpoint) -> UNetDenoiser:
    """The network of a checkpoint, with its schedule."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    config = shapes.unet_config(checkpoint.unet_config, checkpoint.unet, vae=checkpoint.vae)
    network = filled(lambda: UNet2DConditionModel.from_config(config), checkpoint.unet, "UNet")
    return UNetDenoiser(network, DDIMScheduler.from_config(shapes.SCHEDULER))


def codec(checkpoint: TangoCheckpoint) -> tuple[nn.Module, nn.Module]:
    """The autoencoder and the vocoder of a checkpoint."""
    from diffusers import AutoencoderKL
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = shapes.vae_config(checkpoint.vae_config, checkpoint.vae)
    vae = filled(lambda: AutoencoderKL.from_config(config), vae_weights(checkpoint.vae), "autoencoder")
    bands = checkpoint.vocoder["conv_pre.weight"].shape[1]
    statistics = {"mean": torch.zeros(bands), "scale": torch.ones(bands)}  # for a normalisation that is not applied
    vocoder = SpeechT5HifiGanConfig(**shapes.vocoder_config(checkpoint.vocoder))
    return vae, filled(lambda: SpeechT5HifiGan(vocoder), checkpoint.vocoder | statistics, "vocoder")


def _index(tokenizer_class: str) -> dict[str, object]:
    return {
        "_class_name": "TangoPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "vae": ["diffusers", "AutoencoderKL"],
        "vocoder": ["transformers", "SpeechT5HifiGan"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", tokenizer_class],
    }
