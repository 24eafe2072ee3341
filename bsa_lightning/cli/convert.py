"""``lightning convert SRC DST``: a checkpoint in Tango's original layout to a model folder."""

from __future__ import annotations

from pathlib import Path

from bsa_lightning.cli.call import call


def run(words: list[str]) -> None:
    """Runs the command."""
    call(convert, words, positional=True)


def convert(
    src: str, dst: Path, text_encoder: str | None = None, vae: str | None = None, licence: str | None = None
) -> None:
    """Converts a checkpoint in Tango's original layout to a model folder that this project and diffusers open.

    Args:
        src: folder of the checkpoint, hub id, or tango, tango-full, tango-full-ft-audiocaps, tango2, tango2-full.
        dst: folder to write; it must not exist.
        text_encoder: folder or hub id with T5's tokenizer (and configuration); none takes what the checkpoint names.
        vae: checkpoint whose codec to take, for one that Tango's train.py wrote without; none takes that of src.
        licence: of the weights; none takes what the card of src says.
    """
    from bsa_lightning.models.tango.convert import convert_tango

    convert_tango(src, dst, text_encoder=text_encoder, vae=vae, licence=licence, on_part=print)
    print(dst)
