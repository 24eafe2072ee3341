"""What conversions of original checkpoints share: networks with exactly their weights, T5, folders and hub ids."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write
from bsa_lightning.models import provenance as origin
from bsa_lightning.models.family import Family, copy_licences
from bsa_lightning.models.hub import LICENCE_FILES, fetch
from bsa_lightning.models.model_card import licence_of, model_card
from bsa_lightning.models.model_folder import check_finite
from bsa_lightning.models.provenance import INDEX
from bsa_lightning.models.sampling_settings import SamplingSettings
from bsa_lightning.models.tokens import check_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

Config = dict[str, Any]
Weights = Mapping[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)

TEXT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
"""The files of T5's configuration and tokenizer."""
TEXT_ENCODER = "google/flan-t5-large"
"""The text encoder of declare-lab's checkpoints."""

FLAN_T5_LARGE: Config = {
    "vocab_size": 32_128,
    "d_model": 1024,
    "d_kv": 64,
    "d_ff": 2816,
    "num_layers": 24,
    "num_heads": 16,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}


def filled(make: Callable[[], Module], weights: Weights, name: str) -> Module:
    """The network that ``make`` returns with exactly ``weights``, without initialising it first.

    Raises:
        UserError: if a weight is missing, is left over, has another shape, is an integer or is not finite.
    """
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


def t5_encoder(weights: Weights, folder: Path) -> tuple[T5EncoderModel, PreTrainedTokenizerBase]:
    """The text encoder of a checkpoint and its tokenizer.

    Args:
        weights: the weights of the encoder; the embedding may have either or both of its two names.
        folder: the folder of the tokenizer. The configuration of the encoder is also read there if it exists, and is
            otherwise inferred from the weights.

    Raises:
        UserError: if the tokenizer cannot be read, or the parts do not belong together.
    """
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    weights = dict(weights)
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
        config = T5Config(**t5_config(weights))
    encoder = filled(lambda: T5EncoderModel(config), weights, "text encoder")
    encoder.tie_weights()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged file can cause any error
        raise UserError(f"{folder} has no tokenizer that can be read; put T5's tokenizer.json there") from error
    check_tokenizer(tokenizer, config, folder)
    return encoder, tokenizer


def write_model(
    dst: Path,
    parts: Mapping[str, Callable[[Path], object]],
    *,
    provenance: Mapping[str, Any],
    index: Mapping[str, Any],
    family: Family,
    source: Path,
    on_part: Callable[[str], object],
) -> None:
    """Writes a model folder with its index, provenance, pipeline, card and the source's licence files, atomically.

    Args:
        dst: the folder, which must not exist.
        parts: for the names of one or more parts, the function that writes them to a folder.
        provenance: the content of ``provenance.json``, without digests.
        index: the content of ``model_index.json`` without the settings of sampling, which are added.
        family: the family of the model.
        source: the folder of the checkpoint.
        on_part: a function that is called with the names of parts after they are written.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    sampling = SamplingSettings(provenance["num_steps"], provenance["guidance"], provenance["guidance_scale"])
    with atomic_write(dst) as partial:
        for names, write in parts.items():
            write(partial)
            on_part(names)
        origin.write(partial, provenance)
        (partial / INDEX).write_text(json.dumps({**index, **sampling.for_index()}, indent=2) + "\n", encoding="utf-8")
        family.carry_pipeline(partial)
        copy_licences(source, partial)
        card = model_card(provenance, pipeline=str(index["_class_name"]), options=family.pipeline_options)
        (partial / "README.md").write_text(card, encoding="utf-8")


def provenance_of(
    src: str, folder: Path, family: Family, *, published: Sequence[str], licence: str | None, declared: str
) -> dict[str, Any]:
    """The provenance of a converted model.

    Args:
        src: the checkpoint as the user named it.
        folder: its folder.
        family: the family of the model.
        published: the names of declare-lab's checkpoints on the hub.
        licence: the licence of the weights; ``None`` is the one in the card of ``folder``.
        declared: the licence of declare-lab's weights, if that card does not name one.
    """
    named = hub_id(src, published=published)
    theirs = declared if named is not None and named.startswith("declare-lab/") else "unknown"
    return {
        "name": (named or os.path.abspath(src)).rpartition("/")[2],  # noqa: PTH100 - a link keeps its name
        "source": named or Path(src).resolve().name,
        "licence": licence or licence_of(folder) or theirs,
        "num_steps": family.num_steps,
        "guidance": "outside",
        "guidance_scale": family.guidance_scale,
    }


def source_folder(
    src: str, files: Sequence[str], *, published: Sequence[str], optional: Sequence[str] = (), option: str
) -> Path:
    """The folder of a checkpoint, which is fetched from the hub if ``src`` is a hub id.

    Args:
        src: a folder, a hub id, or one of ``published``.
        files: the files that a repository of the hub must have.
        published: the names of declare-lab's checkpoints on the hub.
        optional: patterns of files to fetch if the repository has them, besides its card and its licence.
        option: the option with which the user can name a folder instead, for the message.

    Raises:
        UserError: if there is no such folder, and no such repository that can be had.
    """
    if Path(src).is_dir():
        return Path(src)
    if Path(src).exists():
        raise UserError(f"{src} is a file; name the folder that it is in, as {option.partition(';')[0]}")
    if (named := hub_id(src, published=published)) is None:
        raise UserError(
            f'{src} is neither a folder nor a hub id; name a folder, "owner/name", or one of {", ".join(published)}'
        )
    return fetch(named, files, optional=("README.md", *LICENCE_FILES, *optional), option=option)


def hub_id(src: str, *, published: Sequence[str]) -> str | None:
    """The repository on the hub that ``src`` names, as "owner/name"; ``None`` for a folder."""
    if Path(src).is_dir():
        return None
    if src in published:
        return f"declare-lab/{src}"
    return src if src.count("/") == 1 and not src.startswith((".", "/")) else None


def text_folder(name: str, checkpoint: Path) -> Path:
    """The folder of T5's tokenizer: beside the checkpoint, anywhere, or fetched from the hub.

    Raises:
        UserError: if there is none.
    """
    for folder in (checkpoint / name, Path(name)):
        if folder.is_dir():
            return folder
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise UserError(
            f"text_encoder is {name}, but no such folder exists; name one with T5's tokenizer as --text_encoder"
        )
    return fetch(name, TEXT_FILES, optional=("special_tokens_map.json", "spiece.model"), option="--text_encoder")


def t5_config(weights: Weights) -> Config:
    """The arguments of ``T5Config`` for a checkpoint without a configuration of the text encoder."""
    heads = weights["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].shape[1]
    gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in weights
    return FLAN_T5_LARGE | {
        "vocab_size": len(weights["shared.weight"]),
        "d_model": weights["shared.weight"].shape[1],
        "d_kv": len(weights["encoder.block.0.layer.0.SelfAttention.q.weight"]) // heads,
        "d_ff": weights["encoder.block.0.layer.1.DenseReluDense.wo.weight"].shape[1],
        "num_layers": count(weights, "encoder.block.{}.layer.0.SelfAttention.q.weight"),
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }


def count(weights: Weights, name: str) -> int:
    """The number of keys name.format(0), name.format(1), ... up to the first that is missing."""
    number = 0
    while name.format(number) in weights:
        number += 1
    return number
