"""A checkpoint in Tango's original layout to a model folder, strictly: no weight missing, none left over."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json, refuse_existing, whole
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
"""Of declare-lab's weights on the hub."""


def convert_tango(
    src: str,
    dst: Path,
    *,
    text_encoder: str | None = None,
    vae: str | None = None,
    licence: str | None = None,
    on_part: Callable[[str], object] = lambda _: None,
) -> None:
    """Writes the model folder ``dst``, whole or not at all.

    Args:
        src: a folder, a hub id, or the short name of a published checkpoint ("tango2").
        dst: must not exist yet.
        text_encoder: folder or hub id of T5's configuration and tokenizer; none takes what the checkpoint names.
        vae: folder or hub id whose codec is taken; none takes that of ``src``.
        licence: of the weights; none takes what the source's card says.
        on_part: told the name of each part when it is written.

    Raises:
        UserError: if something is missing or does not fit, before anything is written.
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
        raise UserError(f"{src} lacks the weight {lacking.args[0]}; is the download whole?") from error
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
    with whole(dst) as partial:
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
        (partial / "README.md").write_text(model_card(provenance, pipeline="TangoPipeline"), encoding="utf-8")


def _check_front_end(path: Path) -> None:
    found = read_json(path) if path.is_file() else shapes.MEL
    if different := sorted(name for name in shapes.MEL if found.get(name) != shapes.MEL[name]):
        raise UserError(f"{path} has another {', '.join(different)} than Tango's mel front end, the only one here")


def unet(checkpoint: TangoCheckpoint) -> UNetDenoiser:
    """The network on its schedule."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    config = shapes.unet_config(checkpoint.unet_config, checkpoint.unet, vae=checkpoint.vae)
    network = _filled(lambda: UNet2DConditionModel.from_config(config), checkpoint.unet, "UNet")
    return UNetDenoiser(network, DDIMScheduler.from_config(shapes.SCHEDULER))


def codec(checkpoint: TangoCheckpoint) -> tuple[nn.Module, nn.Module]:
    """Autoencoder and vocoder."""
    from diffusers import AutoencoderKL
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = shapes.vae_config(checkpoint.vae_config, checkpoint.vae)
    vae = _filled(lambda: AutoencoderKL.from_config(config), vae_weights(checkpoint.vae), "autoencoder")
    bands = checkpoint.vocoder["conv_pre.weight"].shape[1]
    statistics = {"mean": torch.zeros(bands), "scale": torch.ones(bands)}  # of a normalisation that is off
    vocoder = SpeechT5HifiGanConfig(**shapes.vocoder_config(checkpoint.vocoder))
    return vae, _filled(lambda: SpeechT5HifiGan(vocoder), checkpoint.vocoder | statistics, "vocoder")


def text(checkpoint: TangoCheckpoint, folder: Path) -> tuple[T5EncoderModel, PreTrainedTokenizerBase]:
    """Encoder and tokenizer; ``folder`` holds the tokenizer and, if it has one, the encoder's configuration."""
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    weights = dict(checkpoint.text_encoder)
    shared, embedded = "shared.weight", "encoder.embed_tokens.weight"  # one tensor under two names
    for name, other in ((shared, embedded), (embedded, shared)):
        if name not in weights and other in weights:
            weights[name] = weights[other]
    if not torch.equal(weights[shared], weights[embedded]):
        raise UserError(
            f"the checkpoint's text encoder has different weights in {shared} and {embedded}, which are one"
        )
    if (folder / "config.json").is_file():
        config = T5Config.from_pretrained(folder, local_files_only=True)
    else:
        config = T5Config(**shapes.t5_config(weights))
    encoder = _filled(lambda: T5EncoderModel(config), weights, "text encoder")
    encoder.tie_weights()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a wrong file makes of its reader
        raise UserError(f"{folder} has no tokenizer that can be read; put T5's tokenizer.json there") from error
    check_tokenizer(tokenizer, config, folder)
    return encoder, tokenizer


def _filled(make: Callable[[], Module], weights: Mapping[str, Tensor], name: str) -> Module:
    """A network with exactly these weights, made without initialising any."""
    with torch.device("meta"):
        network = make()
    ours = network.state_dict()
    lacking, surplus = sorted(ours.keys() - weights.keys()), sorted(weights.keys() - ours.keys())
    unequal = [key for key in ours.keys() & weights.keys() if ours[key].shape != weights[key].shape]
    if lacking or surplus or unequal:
        first = (lacking or surplus or sorted(unequal))[0]
        raise UserError(
            f"the checkpoint's {name} does not fit its configuration: {len(lacking)} weights lack, {len(surplus)} are"
            f" left over, {len(unequal)} have another shape, the first is {first}; is the configuration its own?"
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
            f'{src} is no folder and no hub id; name a folder, "owner/name", or one of {", ".join(shapes.PUBLISHED)}'
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
