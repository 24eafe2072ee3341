"""Reading of checkpoints in TangoFlux's original layout, and the configurations of the networks in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.models.conversion import TEXT_ENCODER, Config, Weights, count
from bsa_lightning.models.provenance import is_integer, is_number
from bsa_lightning.models.tangoflux.denoiser import FRAMES
from bsa_lightning.models.weight_files import part_of, read_weights

PUBLISHED = ("TangoFlux", "TangoFlux-base")
"""Names of declare-lab's checkpoints on the hub."""
FILES = ("config.json", "tangoflux.safetensors", "vae.safetensors")
"""The files of a published checkpoint."""
_TRAINED = "model_1.safetensors"
"""The weights that TangoFlux's own training writes, where accelerate numbers the networks and the codec is first."""
PUBLISHED_CONFIG: Config = {
    "num_layers": 6,
    "num_single_layers": 18,
    "in_channels": 64,
    "attention_head_dim": 128,
    "joint_attention_dim": 1024,
    "num_attention_heads": 8,
    "audio_seq_len": 645,
    "max_duration": 30,
    "text_encoder_name": TEXT_ENCODER,
}
"""The published ``config.json``, whose values are also the defaults of the original code."""
_WHOLE_NUMBERS = [name for name, value in PUBLISHED_CONFIG.items() if isinstance(value, int) and name != "max_duration"]
_PARTS = ("transformer.", "fc.0.", "duration_emebdder.time_positional_embedding.", "text_encoder.")
"""The prefixes of the names of weights, the third as the original spells it."""
_PROJECTION_NAMES = {
    "fc.0.weight": "pooled.weight",
    "fc.0.bias": "pooled.bias",
    "duration_emebdder.time_positional_embedding.0.weights": "frequencies",
    "duration_emebdder.time_positional_embedding.1.weight": "duration.weight",
    "duration_emebdder.time_positional_embedding.1.bias": "duration.bias",
}
"""The original names of the weights of :class:`CaptionProjection`, and ours."""
_BLOCK = "encoder.block.{}.conv1.weight_v"
_RATE = 44_100
"""The rate of the published codec, which no weight tells, in Hz."""


@dataclass(frozen=True)
class TangoFluxCheckpoint:
    """The weights of a checkpoint, by part and under the names of our networks, and its configuration.

    Args:
        transformer: the weights of the transformer.
        projection: the weights of the caption projection.
        text_encoder: the weights of the T5 encoder.
        vae: the weights of the codec.
        config: the configuration, with the original's defaults for missing entries.
        sample_rate: the rate of the codec in Hz.
    """

    transformer: dict[str, Tensor]
    projection: dict[str, Tensor]
    text_encoder: dict[str, Tensor]
    vae: dict[str, Tensor]
    config: Config
    sample_rate: int


def read_checkpoint(folder: Path, codec: Path) -> TangoFluxCheckpoint:
    """Reads the folder of a published checkpoint, or of one that TangoFlux's own training has written.

    Args:
        folder: the folder of the checkpoint.
        codec: the folder with ``vae.safetensors``; it may be ``folder``.

    Raises:
        UserError: if a file is missing or damaged, the configuration is not one of TangoFlux, or a weight belongs to
            another kind of model.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a TangoFlux checkpoint: it has no config.json; name a folder that has one")
    config = PUBLISHED_CONFIG | read_json(folder / "config.json")
    _check(config, folder / "config.json")
    names = [name for name in (FILES[1], _TRAINED) if (folder / name).is_file()]
    if not names:
        raise UserError(f"{folder} has no {FILES[1]}, and no {_TRAINED} of TangoFlux's training; put it there")
    weights = read_weights(folder / names[0])
    if foreign := [name for name in weights if not name.startswith(_PARTS)]:
        raise UserError(
            f"{folder / names[0]} holds {foreign[0]}, which TangoFlux does not have; name a checkpoint of TangoFlux"
        )
    if not (codec / FILES[2]).is_file():
        raise UserError(f"{codec} has no {FILES[2]}; name a published TangoFlux checkpoint's folder with --vae")
    return TangoFluxCheckpoint(
        transformer=part_of(weights, "transformer."),
        projection={
            _PROJECTION_NAMES.get(name, name): tensor
            for name, tensor in weights.items()
            if name.startswith(_PARTS[1:3])
        },
        text_encoder=part_of(weights, "text_encoder."),
        vae=read_weights(codec / FILES[2]),
        config=config,
        sample_rate=_sample_rate(codec / "vae_config.json"),
    )


def transformer_config(config: Config) -> Config:
    """The arguments of ``FluxTransformer2DModel``, and the entry of the frames of a latent, from ``config.json``."""
    own = ("num_layers", "num_single_layers", "in_channels", "attention_head_dim", "num_attention_heads")
    width = config["joint_attention_dim"]
    return {
        **{name: config[name] for name in own},
        "joint_attention_dim": width,
        "pooled_projection_dim": width,
        FRAMES: config["audio_seq_len"],
    }


def projection_config(config: Config, weights: Weights) -> Config:
    """The arguments of :class:`CaptionProjection`."""
    return {
        "width": config["joint_attention_dim"],
        "max_duration": float(config["max_duration"]),
        "num_frequencies": len(weights["frequencies"]),
    }


def vae_config(weights: Weights, sample_rate: int) -> Config:
    """The arguments of ``AutoencoderOobleck``, from the shapes of its weights; published checkpoints have no others."""
    hidden = len(weights["encoder.conv1.weight_v"])
    blocks = [weights[f"encoder.block.{i}.conv1.weight_v"] for i in range(count(weights, _BLOCK))]
    return {
        "encoder_hidden_size": hidden,
        "downsampling_ratios": [block.shape[-1] // 2 for block in blocks],  # a stride is half of its kernel
        "channel_multiples": [len(block) // hidden for block in blocks],
        "decoder_channels": weights["decoder.conv2.weight_v"].shape[1],
        "decoder_input_channels": weights["decoder.conv1.weight_v"].shape[1],
        "audio_channels": weights["encoder.conv1.weight_v"].shape[1],
        "sampling_rate": sample_rate,
    }


def _sample_rate(path: Path) -> int:
    rate = read_json(path).get("sampling_rate", _RATE) if path.is_file() else _RATE
    if not is_integer(rate, at_least=1):
        raise UserError(f"sampling_rate is {rate} in {path}, but must be a whole number of at least 1; correct it")
    return rate


def _check(config: Config, path: Path) -> None:
    """Checks the entries of ``config.json``."""
    for name in _WHOLE_NUMBERS:
        if not is_integer(config[name], at_least=1):
            raise UserError(f"{name} is {config[name]} in {path}, but must be a whole number of at least 1; correct it")
    if not is_number(longest := config["max_duration"], at_least=0) or longest == 0:
        raise UserError(f"max_duration is {longest} in {path}, but must be a number of seconds above 0; correct it")
    if config["attention_head_dim"] != PUBLISHED_CONFIG["attention_head_dim"]:
        raise UserError(
            f"attention_head_dim is {config['attention_head_dim']} in {path}, but must be 128, since the positions of"
            " TangoFlux's frames take so many; name a checkpoint of TangoFlux"
        )
    if not isinstance(config["text_encoder_name"], str) or not config["text_encoder_name"]:
        raise UserError(
            f'text_encoder_name is "{config["text_encoder_name"]}" in {path}, but must be a folder or a hub id'
        )
