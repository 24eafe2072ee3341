"""``lightning convert SRC DST``: a checkpoint in Tango's or TangoFlux's original layout to a model folder."""

from __future__ import annotations

from pathlib import Path

from bsa_lightning.cli.call import call
from bsa_lightning.common.errors import UserError


def run(words: list[str]) -> None:
    """Runs the command."""
    call(convert, words, positional=True)


def convert(
    src: str, dst: Path, text_encoder: str | None = None, vae: str | None = None, licence: str | None = None
) -> None:
    """Converts a checkpoint of Tango or TangoFlux, in its original layout, to a folder that we and diffusers open.

    The two are told apart by the files of the folder (tangoflux.safetensors, vae.safetensors), or by the hub id.

    Args:
        src: the folder or hub id of the checkpoint, or tango, tango-full, tango-full-ft-audiocaps, tango2, tango2-full,
            TangoFlux or TangoFlux-base.
        dst: the folder to write, which must not exist.
        text_encoder: the folder or hub id of T5's tokenizer (and configuration); ``None`` takes the one that the
            checkpoint names.
        vae: the checkpoint to take the codec from, since checkpoints that training has written have no codec; ``None``
            takes the codec of src.
        licence: the licence of the weights; ``None`` takes the one on the card of src. If the card names none, it is
            non-commercial research for TangoFlux.
    """
    from bsa_lightning.models.provenance import INDEX
    from bsa_lightning.models.tango.convert import convert_tango
    from bsa_lightning.models.tangoflux.convert import convert_tangoflux, is_tangoflux

    if (Path(src) / INDEX).is_file():
        raise UserError(f"{src} is in diffusers' layout already, and needs no conversion; name it as it is")
    if (Path(src) / "model_config.json").is_file():
        raise UserError(
            f"{src} is in the layout of Stability AI's own code; make a model folder of it with the conversion script"
            " for its model in diffusers' repository, and name that folder as it is"
        )
    conversion = convert_tangoflux if is_tangoflux(src) else convert_tango
    conversion(src, dst, text_encoder=text_encoder, vae=vae, licence=licence, on_part=print)
    print(dst)
