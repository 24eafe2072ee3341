"""Loading of models: folders in the layout of diffusers, or a student's folder of network, scheduler and provenance."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.settings_alone import refuse_to_load
from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.models import provenance
from bsa_lightning.models.base import Codec, Conditioner, Denoiser
from bsa_lightning.models.model_card import licence_of
from bsa_lightning.models.model_folder import readable
from bsa_lightning.models.provenance import PROVENANCE
from bsa_lightning.models.registry import family_of, pipeline_name, resolve_folder
from bsa_lightning.models.sampling_settings import SamplingSettings, in_file
from bsa_lightning.models.tango.shapes import PUBLISHED

_PUBLISHED = dict.fromkeys(PUBLISHED, "tango") | dict.fromkeys(("tangoflux", "tangoflux-base"), "tangoflux")
"""The families of published models whose shapes are known without a folder, by name in lower case."""
_FRAMES = 16
"""The number of latent frames that a part is tried on after it is read; takes seconds at most."""
_weightless: ContextVar[bool] = ContextVar("weightless", default=False)


@dataclass(frozen=True)
class ModelParts:
    """A complete model: its three parts, its folder, and how it is sampled by default."""

    denoiser: Denoiser
    conditioner: Conditioner
    codec: Codec
    folder: Path
    sampling: SamplingSettings


def load_denoiser(model: str | Path, *, dtype: torch.dtype = torch.float32) -> Denoiser:
    """The network and schedule of a model or student folder.

    Args:
        model: a folder, or the name of the built-in teacher.
        dtype: the type of the weights.

    Raises:
        UserError: if the network cannot be read, or is not the one that its provenance records.
    """
    refuse_to_load(model)
    if not _weightless.get():
        folder = resolve_folder(model)
        family, sampling = family_of(folder), read_sampling(folder)
        provenance.check_identity(folder)
        denoiser = family.denoiser(folder, dtype=dtype)
        if denoiser.takes_guidance != (sampling.guidance == "embedded"):
            raise UserError(
                f'guidance is "{sampling.guidance}" in {folder / PROVENANCE}, but the network has'
                f" {'an' if denoiser.takes_guidance else 'no'} input for its scale; copy the folder again"
            )
        if dtype == torch.float32:  # not every operation of torch supports the other types on a CPU
            _try(folder, "a network that runs", lambda: _trial(denoiser))
        return _aligned(denoiser)
    if is_shape_alone(model):
        module: Any = importlib.import_module(f"bsa_lightning.models.{_PUBLISHED[Path(model).name.lower()]}.family")
        published: Denoiser = module.published_shape(dtype=dtype)
        return published
    return family_of(model).denoiser(resolve_folder(model), dtype=dtype, weights=False)


def is_shape_alone(model: str | Path) -> bool:
    """Whether the published shapes of a model are taken, in :func:`without_weights`, since its folder is not there."""
    return _weightless.get() and not Path(model).is_dir() and Path(model).name.lower() in _PUBLISHED


def _aligned(denoiser: Denoiser) -> Denoiser:
    """The denoiser with its weights moved from the memory-mapped file to memory that torch has allocated.

    In a file the weights begin wherever the header ends, and some matrix products round differently depending on the
    alignment of their factors: a teacher loaded on resume would differ in the last bit from the one that was promoted.
    """
    for tensor in (*denoiser.parameters(), *denoiser.buffers()):
        tensor.data = tensor.data.clone()
    return denoiser


@contextmanager
def without_weights() -> Iterator[None]:
    """A context in which denoisers are loaded with shapes but no weights; published ones then need no folder."""
    token = _weightless.set(True)
    try:
        with warnings.catch_warnings():
            # Copying such a network is correct in spite of the warning of torch.
            warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
            yield
    finally:
        _weightless.reset(token)


def load_conditioner(model: str | Path) -> Conditioner:
    """The text side of a model folder.

    Raises:
        UserError: if a part cannot be read, was changed since it was written, or does not belong to the others.
    """
    folder = _whole(resolve_folder(model))
    conditioner = family_of(folder).conditioner(folder)
    _try(folder, "a text encoder that runs", lambda: list(conditioner.null().tensors.values()))
    return conditioner


def load_codec(model: str | Path) -> Codec:
    """The sound side of a model folder.

    Raises:
        UserError: if a part cannot be read or was changed since it was written.
    """
    folder = _whole(resolve_folder(model))
    codec = family_of(folder).codec(folder)
    _try(folder, "a codec that runs", lambda: [codec.decode(torch.zeros(1, *codec.latent_shape)[:, :, :_FRAMES])])
    return codec


def load_parts(model: str | Path) -> ModelParts:
    """A complete model; a student's folder takes codec and text encoder from the teacher that its provenance names.

    Raises:
        UserError: if a part cannot be read, was changed since it was written, or does not belong to the others.
    """
    folder = resolve_folder(model)
    complete = folder if (folder / family_of(folder).parts[0]).is_dir() else teacher_of(folder)
    teacher = ModelParts(
        denoiser=load_denoiser(folder),
        conditioner=load_conditioner(complete),
        codec=load_codec(complete),
        folder=folder,
        sampling=read_sampling(folder),
    )
    _check_fit(teacher)
    return teacher


def teacher_of(student: Path) -> Path:
    """The complete folder of the teacher from which a student takes its codec and text encoder.

    Raises:
        UserError: if the student's provenance does not name a teacher, or that folder is missing, of another family, or
            contains another network than the one that the student was distilled from.
    """
    known = read_provenance(student)
    if "teacher" not in known:
        return _whole(student)
    named = f"{student / PROVENANCE} names the teacher {known['teacher']}, but"
    try:
        teacher = _whole(resolve_folder(known["teacher"]))
    except UserError as error:
        raise UserError(f"{named} no complete model folder is there; restore it, or correct the path") from error
    if (kind := pipeline_name(teacher)) != pipeline_name(student):
        raise UserError(f"{named} a {kind} is there, not a {pipeline_name(student)}; correct the path")
    if known.get("teacher_sha256", found := folder_sha256(teacher)) != found:
        raise UserError(f"{named} another model is there now; restore the student's own teacher")
    return teacher


def read_sampling(model: str | Path) -> SamplingSettings:
    """How a model or student is sampled by default: as its provenance records, else as its family is.

    Raises:
        UserError: if an entry of the provenance is out of its range.
    """
    folder, family = resolve_folder(model), family_of(model)
    known = read_provenance(folder)
    try:
        return SamplingSettings.from_provenance(known, num_steps=family.num_steps, guidance_scale=family.guidance_scale)
    except UserError as error:
        raise in_file(folder / PROVENANCE, error) from error


def read_provenance(model: str | Path) -> dict[str, Any]:
    """The content of ``provenance.json``, empty if the folder does not have this file.

    Raises:
        UserError: if it cannot be read, or an entry is of the wrong kind.
    """
    return provenance.read(resolve_folder(model))


def read_licence(model: str | Path) -> str:
    """The licence of the weights from the provenance, else from the model card, else "unknown"."""
    return str(read_provenance(model).get("licence") or licence_of(resolve_folder(model)) or "unknown")


def folder_sha256(model: str | Path) -> str:
    """The digest of the network and its scheduler, which identifies a teacher or student."""
    return provenance.folder_sha256(resolve_folder(model))


def _try(folder: Path, kind: str, run: Callable[[], Iterable[Tensor]]) -> None:
    """Checks that a part runs and that its outputs are finite, since a configuration may ask for the impossible."""
    with readable(folder, kind), torch.no_grad():
        tensors = list(run())
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise UserError(f"{folder} is not {kind}: its outputs are not finite; copy the folder again")


def _trial(denoiser: Denoiser) -> Prediction:
    """The prediction of a network for the first frames of an example batch of one clip."""
    z_t, conditioning = denoiser.example_inputs(1)
    return denoiser(z_t[:, :, :_FRAMES], torch.ones(1), conditioning)


def _check_fit(teacher: ModelParts) -> None:
    """Checks that the network takes the latents of the codec and the conditioning of the text encoder."""
    z_t, example = teacher.denoiser.example_inputs(1)
    latent, null = teacher.codec.latent_shape, teacher.conditioner.null()
    if z_t.shape[1] != latent[0]:
        raise UserError(
            f"the network of {teacher.folder} is for latents of {z_t.shape[1]} channels, but the codec makes"
            f" {latent[0]}; combine parts of the same model"
        )
    widths, ours = (
        {name: tuple(tensor.shape[2:] if name in null.masks else tensor.shape[1:]) for name, tensor in tensors.items()}
        for tensors in (example.tensors, null.tensors)
    )
    if {name: width[-1:] for name, width in widths.items()} != {name: width[-1:] for name, width in ours.items()}:
        raise UserError(
            f"the network of {teacher.folder} is for text states {widths}, but its text encoder makes {ours}; combine"
            " parts of the same model"
        )


def _whole(folder: Path) -> Path:
    for name in family_of(folder).parts:
        if not (folder / name).is_dir():
            raise UserError(f"{folder} is not a complete model folder: it has no {name}/; name the teacher's folder")
    return folder
