"""A checkpoint in Tango's original layout: where its files are, what they hold, and its names in ours."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bsa_lightning.errors import UserError
from bsa_lightning.files import read_json
from bsa_lightning.teachers.tango_shapes import Config

CODEC_FILES = ("vae_config.json", "pytorch_model_vae.bin")
FILES = ("main_config.json", "pytorch_model_main.bin", *CODEC_FILES)

_VAE_NAMES = (
    (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
    (r"^(encoder|decoder)\.mid\.block_1\.", r"\1.mid_block.resnets.0."),
    (r"^(encoder|decoder)\.mid\.block_2\.", r"\1.mid_block.resnets.1."),
    (r"^(encoder|decoder)\.mid\.attn_1\.norm\.", r"\1.mid_block.attentions.0.group_norm."),
    (r"^(encoder|decoder)\.mid\.attn_1\.proj_out\.", r"\1.mid_block.attentions.0.to_out.0."),
    (r"^(encoder|decoder)\.mid\.attn_1\.([qkv])\.", r"\1.mid_block.attentions.0.to_\2."),
    (r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"^decoder\.up\.(\d+)\.block\.", r"decoder.up_blocks.\1.resnets."),
    (r"^decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
)
"""The autoencoder's names, original and diffusers'; what is not listed keeps its own."""


@dataclass(frozen=True)
class TangoCheckpoint:
    """What a checkpoint holds, by part and without prefixes, and the configurations that came with it.

    ``vae`` keeps its original names (:func:`vae_weights` translates). ``text_encoder_name`` is a folder or a hub id.
    """

    unet: dict[str, Tensor]
    text_encoder: dict[str, Tensor]
    vae: dict[str, Tensor]
    vocoder: dict[str, Tensor]
    unet_config: Config
    vae_config: Config
    text_encoder_name: str


def read_checkpoint(folder: Path, codec: Path) -> TangoCheckpoint:
    """Reads a published checkpoint's folder, or what Tango's ``train.py`` writes.

    Args:
        folder: of the checkpoint.
        codec: where the codec's two files are, ``folder`` or another; training does not write them.

    Raises:
        UserError: if a file is missing, is no checkpoint, or belongs to another kind of model.
    """
    main_config = _main_config(folder)
    main = _read_weights(folder, "unet.", "pytorch_model_main.bin")
    if foreign := [name for name in main if not name.startswith(("unet.", "text_encoder."))]:
        raise UserError(
            f"{folder} holds {foreign[0]}, which Tango's networks do not have; name a checkpoint of Tango's own network"
        )
    if not (codec / "vae_config.json").is_file():
        raise UserError(f"{codec} has no vae_config.json; name a published Tango checkpoint's folder with --vae")
    vae = _read_weights(codec, "vocoder.", "pytorch_model_vae.bin")
    return TangoCheckpoint(
        unet=_part(main, "unet."),
        text_encoder=_part(main, "text_encoder."),
        vae={name: tensor for name, tensor in vae.items() if not name.startswith("vocoder.")},
        vocoder={re.sub(r"^ups\.", "upsampler.", name): tensor for name, tensor in _part(vae, "vocoder.").items()},
        unet_config=_unet_config(folder, main_config),
        vae_config=read_json(codec / "vae_config.json"),
        text_encoder_name=main_config.get("text_encoder_name", "google/flan-t5-large"),
    )


def vae_weights(original: dict[str, Tensor]) -> dict[str, Tensor]:
    """The autoencoder's weights under diffusers' names."""
    levels = 1 + max(int(found[1]) for name in original if (found := re.match(r"decoder\.up\.(\d+)\.", name)))
    weights = {}
    for name, tensor in original.items():
        # The decoder's levels count from the sound outwards, diffusers' from the latent.
        new = re.sub(r"^decoder\.up\.(\d+)\.", lambda found: f"decoder.up.{levels - 1 - int(found[1])}.", name)
        for pattern, replacement in _VAE_NAMES:
            new = re.sub(pattern, replacement, new)
        # Attention was written as convolutions of size one.
        weights[new] = tensor[..., 0, 0] if ".mid.attn_1." in name and tensor.ndim > 2 else tensor
    return weights


def _main_config(folder: Path) -> Config:
    """Arguments of the model: a published checkpoint's file, or the first line of a training's log."""
    for path in (folder / "main_config.json", folder / "config.json"):
        if path.is_file():
            return read_json(path)
    for log in (folder / "summary.jsonl", folder.parent / "summary.jsonl"):
        if log.is_file():
            try:
                first: Config = json.loads(log.read_text().split("\n", 1)[0])
            except ValueError as error:
                raise UserError(f"the first line of {log} is no JSON ({error}); restore it") from error
            return first
    raise UserError(f"{folder} is no Tango checkpoint: it has no main_config.json; name a folder that has one")


def _unet_config(folder: Path, main_config: Config) -> Config:
    """The network's configuration where the checkpoint carries one; published ones do not."""
    named = main_config.get("unet_model_config_path") or main_config.get("unet_model_config")
    if named is None:
        return {}
    name = Path(named)
    for path in (folder / name, folder / name.name, folder.parent / name.name):
        if path.is_file():
            return read_json(path)
    return {}


def _read_weights(folder: Path, prefix: str, usual: str) -> dict[str, Tensor]:
    """The weights among a folder's files that have names with ``prefix``."""
    for path in _candidates(folder, usual):
        weights = _load(path)
        if any(name.startswith(prefix) for name in weights):
            return weights
    raise UserError(f"{folder} has no file with {prefix}* weights, such as {usual}; put it there")


def _candidates(folder: Path, usual: str) -> Iterator[Path]:
    if (folder / usual).is_file():
        yield folder / usual
        return
    for pattern in ("*.safetensors", "*.bin"):
        yield from sorted(folder.glob(pattern), reverse=True)  # a training numbers its models; the last is the network


def _load(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        weights: dict[str, Tensor] = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a file of weights ({_first_line(error)}); download it again") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} holds something else than named weights; name a Tango checkpoint")
    return weights


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:120]


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
