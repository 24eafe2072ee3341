"""Conversion of checkpoints in TangoFlux's original layout to model folders, with each weight used exactly once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json, refuse_existing
from bsa_lightning.models.conversion import (
    TEXT_ENCODER,
    TEXT_FILES,
    filled,
    hub_id,
    provenance_of,
    source_folder,
    t5_encoder,
    text_folder,
    write_model,
)
from bsa_lightning.models.model_folder import readable
from bsa_lightning.models.tangoflux.caption_projection import CaptionProjection
from bsa_lightning.models.tangoflux.checkpoint import (
    FILES,
    PUBLISHED,
    TangoFluxCheckpoint,
    projection_config,
    read_checkpoint,
    transformer_config,
    vae_config,
)
from bsa_lightning.models.tangoflux.denoiser import TangoFluxDenoiser
from bsa_lightning.models.tangoflux.family import TangoFluxFamily

if TYPE_CHECKING:
    from diffusers import AutoencoderOobleck

_LICENCE = (
    "non-commercial research only (Stability AI Community License; WavCaps, academic use only; UK research exemption)"
)
"""The licence of declare-lab's weights. It has commas and spaces, so that a card shows it under "other"."""


def is_tangoflux(src: str) -> bool:
    """Whether ``src`` is a checkpoint of TangoFlux: a folder with its files, or a hub id or short name of that name."""
    folder = Path(src)
    if not folder.is_dir():
        return (hub_id(src, published=PUBLISHED) or src).rpartition("/")[2].lower().startswith("tangoflux")
    if any((folder / name).is_file() for name in FILES[1:]):
        return True
    config = folder / FILES[0]
    return config.is_file() and "num_single_layers" in read_json(config)


def convert_tangoflux(
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
        src: the checkpoint: a folder, a hub id, or "TangoFlux" or "TangoFlux-base".
        dst: the model folder, which must not exist.
        text_encoder: the folder or hub id of T5's configuration and tokenizer; ``None`` is the one that the checkpoint
            names.
        vae: the folder or hub id of the codec; ``None`` is ``src``.
        licence: the licence of the weights; ``None`` is the one in the model card of ``src``, unless that is only
            "other", and of declare-lab's otherwise.
        on_part: a function that is called with the name of each part after it is written.

    Raises:
        UserError: if a file is missing or parts do not belong together; nothing is written then.
    """
    refuse_existing(dst, setting="dst")
    option = f"SRC; likewise {TEXT_ENCODER} with {', '.join(TEXT_FILES)}, as --text_encoder"
    folder = source_folder(src, FILES, published=PUBLISHED, option=option)
    codec_folder = folder if vae is None else source_folder(vae, FILES[2:], published=PUBLISHED, option="--vae")
    checkpoint = read_checkpoint(folder, codec_folder)
    words = text_folder(text_encoder or checkpoint.config["text_encoder_name"], folder)
    try:
        with readable(folder, "TangoFlux's networks"):
            denoiser, autoencoder, projected = transformer(checkpoint), codec(checkpoint), projection(checkpoint)
            encoder, tokenizer = t5_encoder(checkpoint.text_encoder, words)
    except UserError as error:
        if not isinstance(lacking := error.__cause__, KeyError):
            raise
        raise UserError(f"{src} lacks the weight {lacking.args[0]}; download it again") from error
    _check_fit(checkpoint, channels=autoencoder.config.decoder_input_channels, width=encoder.config.d_model)
    family = TangoFluxFamily()
    provenance = provenance_of(src, folder, family, published=PUBLISHED, licence=licence, declared=_LICENCE)
    if provenance["licence"] in ("other", "unknown"):  # of a card that says no more, or of a copy without a card
        provenance["licence"] = _LICENCE
    write_model(
        dst,
        {
            "transformer": denoiser.save,
            "vae": lambda partial: autoencoder.save_pretrained(partial / "vae"),
            "projection": lambda partial: projected.save_pretrained(partial / "projection"),
            "text_encoder": lambda partial: encoder.save_pretrained(partial / "text_encoder"),
            "tokenizer": lambda partial: tokenizer.save_pretrained(partial / "tokenizer"),
        },
        provenance=provenance,
        index=_index(type(tokenizer).__name__),
        family=family,
        source=folder,
        on_part=on_part,
    )


def transformer(checkpoint: TangoFluxCheckpoint) -> TangoFluxDenoiser:
    """The network of a checkpoint, with its schedule."""
    from diffusers import FluxTransformer2DModel

    config = transformer_config(checkpoint.config)
    made = filled(lambda: FluxTransformer2DModel.from_config(config), checkpoint.transformer, "transformer")
    return TangoFluxDenoiser(made)


def projection(checkpoint: TangoFluxCheckpoint) -> CaptionProjection:
    """The networks of the pooled text and of the duration."""
    config = projection_config(checkpoint.config, checkpoint.projection)
    return filled(lambda: CaptionProjection(**config), checkpoint.projection, "projection of text and duration")


def codec(checkpoint: TangoFluxCheckpoint) -> AutoencoderOobleck:
    """The autoencoder of waveforms."""
    from diffusers import AutoencoderOobleck

    config = vae_config(checkpoint.vae, checkpoint.sample_rate)
    with warnings.catch_warnings():
        # diffusers builds it with a function that torch has deprecated.
        warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
        return filled(lambda: AutoencoderOobleck.from_config(config), checkpoint.vae, "codec")


def _check_fit(checkpoint: TangoFluxCheckpoint, *, channels: int, width: int) -> None:
    """Checks that the transformer takes the latents of the codec and the states of the text encoder."""
    config = checkpoint.config
    if config["in_channels"] != channels:
        raise UserError(
            f"in_channels is {config['in_channels']} in config.json, but the codec's latents have {channels}; name the"
            " codec of this checkpoint"
        )
    if config["joint_attention_dim"] != width:
        raise UserError(
            f"joint_attention_dim is {config['joint_attention_dim']} in config.json, but the text encoder's states"
            f" have {width}; restore the config.json of this checkpoint"
        )


def _index(tokenizer_class: str) -> dict[str, object]:
    return {
        "_class_name": "TangoFluxPipeline",
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "vae": ["diffusers", "AutoencoderOobleck"],
        "projection": ["caption_projection", "CaptionProjection"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", tokenizer_class],
    }
