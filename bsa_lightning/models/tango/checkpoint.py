"""Reading of checkpoints in Tango's original layout, with their weights under the names of diffusers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.models.tango.shapes import Config
from bsa_lightning.models.weight_files import part_of, read_weights, shards_of

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
"""Patterns of the autoencoder's original names and their replacements in diffusers; other names stay."""


_SHOWN = 5
"""The most files or folders in a message."""


@dataclass(frozen=True)
class TangoCheckpoint:
    """The weights of a checkpoint, by part and without prefixes, and the configurations that came with it.

    Args:
        unet: the weights of the UNet.
        text_encoder: the weights of the T5 encoder.
        vae: the weights of the autoencoder under their original names, see :func:`vae_weights`.
        vocoder: the weights of the vocoder.
        unet_config: the configuration of the UNet, empty if the checkpoint does not have it.
        vae_config: the configuration of the autoencoder.
        text_encoder_name: the folder or hub id of the T5 model that the encoder was initialised from.
    """

    unet: dict[str, Tensor]
    text_encoder: dict[str, Tensor]
    vae: dict[str, Tensor]
    vocoder: dict[str, Tensor]
    unet_config: Config
    vae_config: Config
    text_encoder_name: str


def read_checkpoint(folder: Path, codec: Path) -> TangoCheckpoint:
    """Reads the folder of a published checkpoint, or a folder that Tango's ``train.py`` has written.

    Args:
        folder: the folder of the checkpoint.
        codec: the folder of the codec's two files, which ``train.py`` does not write; it may be ``folder``.

    Raises:
        UserError: if a file is missing or not a checkpoint, or belongs to another kind of model.
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
    text_encoder_name = main_config.get("text_encoder_name", "google/flan-t5-large")
    if not isinstance(text_encoder_name, str) or not text_encoder_name:
        raise UserError(f"text_encoder_name is {text_encoder_name} of {folder}, but must be a folder or a hub id")
    return TangoCheckpoint(
        unet=part_of(main, "unet."),
        text_encoder=part_of(main, "text_encoder."),
        vae={name: tensor for name, tensor in vae.items() if not name.startswith("vocoder.")},
        vocoder={re.sub(r"^ups\.", "upsampler.", name): tensor for name, tensor in part_of(vae, "vocoder.").items()},
        unet_config=_unet_config(folder, main_config),
        vae_config=read_json(codec / "vae_config.json"),
        text_encoder_name=text_encoder_name,
    )


def vae_weights(original: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the autoencoder under the names of diffusers."""
    levels = 1 + max(int(found[1]) for name in original if (found := re.match(r"decoder\.up\.(\d+)\.", name)))
    weights = {}
    for name, tensor in original.items():
        # Levels of the decoder are numbered from the output, in diffusers from the latent.
        new = re.sub(r"^decoder\.up\.(\d+)\.", lambda found: f"decoder.up.{levels - 1 - int(found[1])}.", name)
        for pattern, replacement in _VAE_NAMES:
            new = re.sub(pattern, replacement, new)
        # The projections of attention are stored as convolutions with kernels of size one.
        weights[new] = tensor[..., 0, 0] if ".mid.attn_1." in name and tensor.ndim > 2 else tensor
    return weights


def _main_config(folder: Path) -> Config:
    """The arguments of the model, from the file of a published checkpoint or the first line of a training log."""
    for path in (folder / "main_config.json", folder / "config.json"):
        if path.is_file():
            return read_json(path)
    for log in (folder / "summary.jsonl", folder.parent / "summary.jsonl"):
        if log.is_file():
            try:
                first: object = json.loads(log.read_text(encoding="utf-8").split("\n", 1)[0])
                if not isinstance(first, dict):
                    raise ValueError("it holds no object")
            except (ValueError, OSError, RecursionError) as error:
                raise UserError(f"the first line of {log} is not JSON ({error}); restore it") from error
            return first
    raise UserError(f"{folder} is not a Tango checkpoint: it has no main_config.json; name a folder that has one")


def _unet_config(folder: Path, main_config: Config) -> Config:
    """The configuration of the UNet, empty if the checkpoint does not contain it, as published ones do not."""
    named = main_config.get("unet_model_config_path") or main_config.get("unet_model_config")
    if named is None:
        return {}
    if not isinstance(named, str):
        raise UserError(f"unet_model_config_path is {named} of {folder}, but must be the path of a file")
    name = Path(named)
    for path in (folder / name, folder / name.name, folder.parent / name.name):
        if path.is_file():
            return read_json(path)
    return {}


def _read_weights(folder: Path, prefix: str, usual: str) -> dict[str, Tensor]:
    """The weights in the file of a folder that has names with ``prefix``.

    That is the file named ``usual`` if it exists. Otherwise all files of weights are searched, since training numbers
    its files and saves its own state beside them.

    Raises:
        UserError: if no file has such names, or several files have different weights of these names.
    """
    found: dict[Path, dict[str, Tensor]] = {}
    passed = []
    for path in _candidates(folder, usual):
        try:
            weights = read_weights(path)
        except UserError as error:
            if path.name == usual:
                raise
            reason = re.split(r" \(|;", str(error).removeprefix(str(path)))[0]
            passed.append(f"{path.name}{reason}")
            continue
        if any(name.startswith(prefix) for name in weights):
            found[path] = weights
            if path.name == usual:
                break
        else:
            passed.append(f"{path.name} has none")
    if not found:
        raise UserError(_advice(folder, prefix, usual, passed))
    (path, weights), *others = found.items()
    for other, again in others:
        if not _are_same(weights, again):
            raise UserError(
                f"{folder} has different {prefix}* weights in {path.name} and in {other.name}; remove the"
                " unintended ones"
            )
    return weights


def _candidates(folder: Path, usual: str) -> list[Path]:
    """The files that may contain the weights, the usual one first; an index stands for its shards."""
    indices = sorted(folder.glob("*.index.json"))
    shards = {shard for index in indices for shard in shards_of(index)}
    single = [path for kind in ("safetensors", "bin") for path in sorted(folder.glob(f"*.{kind}"), reverse=True)]
    return sorted((*indices, *(path for path in single if path not in shards)), key=lambda path: path.name != usual)


def _are_same(weights: dict[str, Tensor], again: dict[str, Tensor]) -> bool:
    both = weights.keys() & again.keys()
    return bool(both) and all(torch.equal(weights[name], again[name]) for name in both)


def _advice(folder: Path, prefix: str, usual: str, passed: list[str]) -> str:
    """The message for missing weights: what is missing, which files were searched, and which subfolders have more."""
    text = f"{folder} has no file with {prefix}* weights, such as {usual}"
    if passed:
        text += f" ({', '.join(passed[:_SHOWN])}{', ...' if len(passed) > _SHOWN else ''})"
    below = sorted({path.parent.name for kind in ("safetensors", "bin") for path in folder.glob(f"*/*.{kind}")})
    if below:
        return f"{text}; there are such files in {', '.join(below[:_SHOWN])}, of which one may be meant"
    return f"{text}; put it there"
