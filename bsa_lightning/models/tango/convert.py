"""Conversion of checkpoints in Tango's original layout to model folders, with each weight used exactly once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write, read_json, refuse_existing
from bsa_lightning.models import provenance as origin
from bsa_lightning.models.hub import fetch
from bsa_lightning.models.model_card import licence_of, model_card
from bsa_lightning.models.model_folder import check_finite, readable
from bsa_lightning.models.tango import shapes
from bsa_lightning.models.tango.checkpoint import CODEC_FILES, FILES, TangoCheckpoint, read_checkpoint, vae_weights
from bsa_lightning.models.tango.family import TangoFamily
from bsa_lightning.models.tokens import check_tokenizer
from bsa_lightning.models.unet import UNetDenoiser

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

Module = TypeVar("Module", bound=nn.Module)
_TEXT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
_TEXT = "google/flan-t5-large"
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
    from transformers.utils.logging import disable_progress_bar

    refuse_existing(dst, setting="dst")
    folder = _folder(src, FILES, option=f"SRC; likewise {_TEXT} with {', '.join(_TEXT_FILES)}, as --text_encoder")
    codec_folder = folder if vae is None else _folder(vae, CODEC_FILES, option="--vae")
    for front_end in (folder / "stft_config.json", codec_folder / "stft_config.json"):
        _check_front_end(front_end)
    checkpoint = read_checkpoint(folder, codec_folder)
    text_folder = _text_folder(text_encoder or checkpoint.text_encoder_name, folder)
    try:
        with readable(folder, "Tango's networks"):
            denoiser, (autoencoder, vocoder), (encoder, tokenizer) = (
                unet(checkpoint),
                codec(checkpoint),
                text(checkpoint, text_folder),
            )
    except UserError as error:
        if not isinstance(lacking := error.__cause__, KeyError):
            raise
        raise UserError(f"{src} lacks the weight {lacking.args[0]}; download it again") from error
    hub_id = _hub_id(src)
    theirs = _LICENCE if hub_id is not None and hub_id.startswith("declare-lab/") else "unknown"
    provenance = {
        "name": Path(src).name,
        "source": hub_id or Path(src).resolve().name,
        "licence": licence or licence_of(folder) or theirs,
        "num_steps": TangoFamily.num_steps,
        "guidance": "outside",
        "guidance_scale": TangoFamily.guidance_scale,
    }
    disable_progress_bar()
    with atomic_write(dst) as partial:
        denoiser.save(partial)
        on_part("unet")
        autoencoder.save_pretrained(partial / "vae")  # type: ignore[operator]
        vocoder.save_pretrained(partial / "vocoder")  # type: ignore[operator]
        on_part("vae, vocoder")
        encoder.save_pretrained(partial / "text_encoder")
        tokenizer.save_pretrained(partial / "tokenizer")
        on_part("text_encoder, tokenizer")
        origin.write(partial, provenance)
        (partial / "model_index.json").write_text(
            json.dumps(_index(type(tokenizer).__name__), indent=2) + "\n", encoding="utf-8"
        )
        family = TangoFamily()
        family.carry_pipeline(partial)
        card = model_card(provenance, pipeline="TangoPipeline", options=family.pipeline_options)
        (partial / "README.md").write_text(card, encoding="utf-8")


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
    network = _filled(lambda: UNet2DConditionModel.from_config(config), checkpoint.unet, "UNet")
    return UNetDenoiser(network, DDIMScheduler.from_config(shapes.SCHEDULER))


def codec(checkpoint: TangoCheckpoint) -> tuple[nn.Module, nn.Module]:
    """The autoencoder and the vocoder of a checkpoint."""
    from diffusers import AutoencoderKL
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = shapes.vae_config(checkpoint.vae_config, checkpoint.vae)
    vae = _filled(lambda: AutoencoderKL.from_config(config), vae_weights(checkpoint.vae), "autoencoder")
    bands = checkpoint.vocoder["conv_pre.weight"].shape[1]
    statistics = {"mean": torch.zeros(bands), "scale": torch.ones(bands)}  # for a normalisation that is not applied
    vocoder = SpeechT5HifiGanConfig(**shapes.vocoder_config(checkpoint.vocoder))
    return vae, _filled(lambda: SpeechT5HifiGan(vocoder), checkpoint.vocoder | statistics, "vocoder")


def text(checkpoint: TangoCheckpoint, folder: Path) -> tuple[T5EncoderModel, PreTrainedTokenizerBase]:
    """The text encoder of a checkpoint and its tokenizer.

    Args:
        checkpoint: the checkpoint.
        folder: the folder of the tokenizer. The configuration of the encoder is also read there if it exists, and is
            otherwise inferred from the weights.

    Raises:
        UserError: if the tokenizer cannot be read, or the parts do not belong together.
    """
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    weights = dict(checkpoint.text_encoder)
    shared, embedded = "shared.weight", "encoder.embed_tokens.weight"  # one tensor under two names
    for name, other in ((shared, embedded), (embedded, shared)):
        if name not in weights and other in weights:
            weights[name] = weights[other]
    if not torch.equal(weights[shared], weights[embedded]):
        raise UserError(
            f"the checkpoint's text encoder has different weights in {shared} and {embedded}, which must be equal"
        )
    if (folder / "config.json").is_file():
        config = T5Config.from_pretrained(folder, local_files_only=True)
    else:
        config = T5Config(**shapes.t5_config(weights))
    encoder = _filled(lambda: T5EncoderModel(config), weights, "text encoder")
    encoder.tie_weights()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged file can cause any error
        raise UserError(f"{folder} has no tokenizer that can be read; put T5's tokenizer.json there") from error
    check_tokenizer(tokenizer, config, folder)
    return encoder, tokenizer


def _filled(make: Callable[[], Module], weights: Mapping[str, Tensor], name: str) -> Module:
    """The network that ``make`` returns with exactly ``weights``, without initialising it first."""
    with torch.device("meta"):
        network = make()
    ours = network.state_dict()
    lacking, surplus = sorted(ours.keys() - weights.keys()), sorted(weights.keys() - ours.keys())
    unequal = [key for key in ours.keys() & weights.keys() if ours[key].shape != weights[key].shape]
    if lacking or surplus or unequal:
        first = (lacking or surplus or sorted(unequal))[0]
        raise UserError(
            f"the checkpoint's {name} does not fit its configuration: {len(lacking)} weights are missing,"
            f" {len(surplus)} are unexpected, {len(unequal)} have another shape, the first is {first}; use its own"
            " configuration"
        )
    for key, tensor in weights.items():
        if ours[key].is_floating_point() and not tensor.is_floating_point():
            raise UserError(f"the checkpoint's {name} holds {key} as {tensor.dtype}; name weights in floating point")
    network.load_state_dict(weights, assign=True)
    check_finite(network, f"the checkpoint's {name}")
    return network.eval()


def _folder(src: str, files: Sequence[str], *, option: str) -> Path:
    if Path(src).is_dir():
        return Path(src)
    if Path(src).exists():
        raise UserError(f"{src} is a file; name the folder that it is in, as {option.partition(';')[0]}")
    if (hub_id := _hub_id(src)) is None:
        raise UserError(
            f'{src} is neither a folder nor a hub id; name a folder, "owner/name", or one of'
            f" {', '.join(shapes.PUBLISHED)}"
        )
    return fetch(hub_id, files, optional=("README.md", "stft_config.json"), option=option)


def _hub_id(src: str) -> str | None:
    if Path(src).is_dir():
        return None
    if src in shapes.PUBLISHED:
        return f"declare-lab/{src}"
    return src if src.count("/") == 1 and not src.startswith((".", "/")) else None


def _text_folder(name: str, checkpoint: Path) -> Path:
    for folder in (checkpoint / name, Path(name)):
        if folder.is_dir():
            return folder
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise UserError(f"text_encoder is {name}, but no such folder exists; name one with T5's tokenizer")
    return fetch(name, _TEXT_FILES, optional=("special_tokens_map.json", "spiece.model"), option="--text_encoder")


def _index(tokenizer_class: str) -> dict[str, object]:
    return {
        "_class_name": "TangoPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "vae": ["diffusers", "AutoencoderKL"],
        "vocoder": ["transformers", "SpeechT5HifiGan"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", tokenizer_class],
        "num_inference_steps": TangoFamily.num_steps,
        "guidance": "outside",
        "guidance_scale": TangoFamily.guidance_scale,
    }
