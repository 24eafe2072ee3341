"""A model is a folder in diffusers' layout; a student's folder holds network, scheduler and provenance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsa_lightning.errors import UserError
from bsa_lightning.teachers.base import Codec, Conditioner, Denoiser
from bsa_lightning.teachers.hashing import sha256_of

BUILT_IN = "tiny"
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Teacher:
    """A whole model: the three seams, and how it is meant to be sampled."""

    denoiser: Denoiser
    conditioner: Conditioner
    codec: Codec
    folder: Path
    num_steps: int
    guidance_scale: float


def resolve_folder(model: str | Path) -> Path:
    """The folder of ``model``: a path, or "tiny" for the built-in teacher.

    Raises:
        UserError: if there is no such folder.
    """
    folder = Path(__file__).parent / "tiny" if str(model) == BUILT_IN else Path(model)
    if not folder.is_dir():
        raise UserError(f'model is "{model}", but no such folder exists; name a model folder, or "{BUILT_IN}"')
    return folder


def load_denoiser(model: str | Path) -> Denoiser:
    """The network and schedule of a model or student folder."""
    from bsa_lightning.teachers.unet import UNetDenoiser

    return UNetDenoiser.from_folder(resolve_folder(model))


def load_conditioner(model: str | Path) -> Conditioner:
    """The text side of a model folder."""
    from bsa_lightning.teachers.t5 import T5Conditioner

    _hide_loading_bars()
    return T5Conditioner.from_folder(_whole(resolve_folder(model)))


def load_codec(model: str | Path) -> Codec:
    """The sound side of a model folder."""
    from bsa_lightning.teachers.mel_codec import MelCodec

    _hide_loading_bars()
    folder = _whole(resolve_folder(model))
    return MelCodec.from_folder(folder, latent_frames=_read_json(folder / "unet" / "config.json")["sample_size"][0])


def load_teacher(model: str | Path) -> Teacher:
    """A whole model; a student folder borrows codec and text encoder from the teacher that its provenance names."""
    folder = resolve_folder(model)
    provenance = read_provenance(folder)
    whole = folder if (folder / "vae").is_dir() else resolve_folder(provenance.get("teacher", folder))
    return Teacher(
        denoiser=load_denoiser(folder),
        conditioner=load_conditioner(whole),
        codec=load_codec(whole),
        folder=folder,
        num_steps=provenance.get("num_steps", 200),
        guidance_scale=1.0 if provenance.get("guidance") == "baked" else provenance.get("guidance_scale", 3.0),
    )


def read_provenance(model: str | Path) -> dict[str, Any]:
    """What ``provenance.json`` says; empty where a folder has none."""
    path = resolve_folder(model) / PROVENANCE
    return _read_json(path) if path.is_file() else {}


def folder_sha256(model: str | Path) -> str:
    """Digest of the network and its schedule: what identifies a teacher or student."""
    folder = resolve_folder(model)
    return sha256_of(folder / "unet", folder / "scheduler")


def _hide_loading_bars() -> None:
    """A bar for each half second of loading would tear those of training and scoring."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def _whole(folder: Path) -> Path:
    for name in ("vae", "text_encoder", "tokenizer"):
        if not (folder / name).is_dir():
            raise UserError(f"{folder} is not a whole model folder: it has no {name}/; name the teacher's folder")
    return folder


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); name a whole model folder") from error
    return content
