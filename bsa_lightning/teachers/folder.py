"""A model is a folder in diffusers' layout; a student's folder holds network, scheduler and provenance."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bsa_lightning.errors import UserError
from bsa_lightning.files import read_json
from bsa_lightning.teachers.base import Codec, Conditioner, Denoiser
from bsa_lightning.teachers.family import INDEX, Family
from bsa_lightning.teachers.hashing import sha256_of
from bsa_lightning.teachers.model_card import licence_of
from bsa_lightning.teachers.sampling import Sampling
from bsa_lightning.teachers.tango_shapes import PUBLISHED

BUILT_IN = "tiny"
PROVENANCE = "provenance.json"
FAMILIES = {
    "TangoPipeline": ("tango", "Tango"),
    "AudioLDMPipeline": ("audioldm", "AudioLDM"),
    "AudioLDM2Pipeline": ("audioldm2", "AudioLDM2"),
    "StableAudioPipeline": ("stable_audio", "StableAudio"),
}
"""Pipeline class that a folder names: the module of this package that reads it, and its Family there."""
_weightless: ContextVar[bool] = ContextVar("weightless", default=False)


@dataclass(frozen=True)
class Teacher:
    """A whole model: the three seams, and how it is meant to be sampled."""

    denoiser: Denoiser
    conditioner: Conditioner
    codec: Codec
    folder: Path
    sampling: Sampling


def resolve_folder(model: str | Path) -> Path:
    """The folder of ``model``: a path, or "tiny" for the built-in teacher.

    Raises:
        UserError: if there is no such folder.
    """
    folder = Path(__file__).parent / "tiny" if str(model) == BUILT_IN else Path(model)
    if not folder.is_dir():
        raise UserError(f'model is "{model}", but no such folder exists; name a model folder, or "{BUILT_IN}"')
    return folder


def pipeline_name(model: str | Path) -> str:
    """The pipeline class that a model folder's index, or a student's provenance, names.

    Raises:
        UserError: if it names none, or one that no file of this package reads.
    """
    folder = resolve_folder(model)
    index = folder / INDEX
    name = read_json(index).get("_class_name") if index.is_file() else read_provenance(folder).get("pipeline")
    if name is None:
        raise UserError(f"{folder} is not a model folder: it has no {INDEX}; name a whole one, or a student's")
    if name not in FAMILIES:
        raise UserError(f'{folder} holds a "{name}", but only {", ".join(FAMILIES)} can be read; name another folder')
    return str(name)


def family_of(model: str | Path) -> Family:
    """What reads the folder of ``model``."""
    module, name = FAMILIES[pipeline_name(model)]
    family: Family = getattr(importlib.import_module(f"bsa_lightning.teachers.{module}"), name)()
    return family


def load_denoiser(model: str | Path, *, dtype: torch.dtype = torch.float32) -> Denoiser:
    """The network and schedule of a model or student folder.

    Raises:
        UserError: if it cannot be read, or is not what its provenance says.
    """
    if not _weightless.get():
        if read_provenance(model).get("sha256") not in (None, folder_sha256(model)):
            raise UserError(
                f"{model} is damaged or was changed, since its {PROVENANCE} knows other files; train or copy it again"
            )
        return _aligned(family_of(model).denoiser(resolve_folder(model), dtype=dtype))
    if not Path(model).is_dir() and Path(model).name in PUBLISHED:
        from bsa_lightning.teachers.tango import published_shape

        return published_shape(dtype=dtype)
    return family_of(model).denoiser(resolve_folder(model), dtype=dtype, weights=False)


def _aligned(denoiser: Denoiser) -> Denoiser:
    """Its weights, moved from the mapped file to memory that torch has allocated.

    In a file they lie wherever its header ends, and some matrix products round differently by how their factors are
    aligned: a teacher loaded on resume would differ in the last bit from the one that was promoted.
    """
    for tensor in (*denoiser.parameters(), *denoiser.buffers()):
        tensor.data = tensor.data.clone()
    return denoiser


@contextmanager
def without_weights() -> Iterator[None]:
    """Denoisers that are loaded in here have shapes but no weights; those of a published Tango need no folder."""
    token = _weightless.set(True)
    try:
        with warnings.catch_warnings():
            # Copying such a network is right, whatever torch suspects.
            warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
            yield
    finally:
        _weightless.reset(token)


def load_conditioner(model: str | Path) -> Conditioner:
    """The text side of a model folder."""
    _hide_loading_bars()
    return family_of(model).conditioner(_whole(resolve_folder(model)))


def load_codec(model: str | Path) -> Codec:
    """The sound side of a model folder."""
    _hide_loading_bars()
    return family_of(model).codec(_whole(resolve_folder(model)))


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
        sampling=read_sampling(folder),
    )


def read_sampling(model: str | Path) -> Sampling:
    """How a model or student is meant to be sampled: as its provenance says, else as its family is."""
    provenance, family = read_provenance(model), family_of(model)
    bounds = provenance.get("guidance_range")
    return Sampling(
        num_steps=provenance.get("num_steps", family.num_steps),
        guidance=provenance.get("guidance", "outside"),
        guidance_scale=provenance.get("guidance_scale", family.guidance_scale),
        guidance_range=None if bounds is None else (bounds[0], bounds[1]),
    )


def read_provenance(model: str | Path) -> dict[str, Any]:
    """What ``provenance.json`` says; empty where a folder has none."""
    path = resolve_folder(model) / PROVENANCE
    return read_json(path) if path.is_file() else {}


def read_licence(model: str | Path) -> str:
    """Of the weights: as the provenance says, else the model card; "unknown" where neither does."""
    return str(read_provenance(model).get("licence") or licence_of(resolve_folder(model)) or "unknown")


def folder_sha256(model: str | Path) -> str:
    """Digest of the network and its schedule: what identifies a teacher or student."""
    folder = resolve_folder(model)
    return sha256_of(*(path for name in ("unet", "transformer", "scheduler") if (path := folder / name).is_dir()))


def _hide_loading_bars() -> None:
    """A bar for each half second of loading would tear those of training and scoring."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def _whole(folder: Path) -> Path:
    for name in ("vae", "text_encoder", "tokenizer"):
        if not (folder / name).is_dir():
            raise UserError(f"{folder} is not a whole model folder: it has no {name}/; name the teacher's folder")
    return folder
