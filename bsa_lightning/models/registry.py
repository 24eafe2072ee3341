"""Which family of models reads a model folder; families of other packages register here, too."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.models import provenance
from bsa_lightning.models.family import Family
from bsa_lightning.models.hub import fetch_model
from bsa_lightning.models.provenance import INDEX

BUILT_IN = ("tiny", "tiny-flow")
"""What the built-in teachers are called wherever a model folder is named: one predicts v, one is a rectified flow."""
ENTRY_POINTS = "bsa_lightning.families"
"""Group of entry points in which an installed package names its families, pipeline class = "module:Family"."""

_INHERITED = "BSA_LIGHTNING_FAMILIES"
"""The environment variable that tells the processes of other devices the families, as "Pipeline=module:Family;..."."""

_families: dict[str, type[Family] | str] = {
    "TangoPipeline": "bsa_lightning.models.tango.family:TangoFamily",
    "AudioLDMPipeline": "bsa_lightning.models.audioldm:AudioLDMFamily",
    "AudioLDM2Pipeline": "bsa_lightning.models.audioldm2:AudioLDM2Family",
    "TangoFluxPipeline": "bsa_lightning.models.tangoflux.family:TangoFluxFamily",
    "StableAudioPipeline": "bsa_lightning.models.stable_audio.family:StableAudioFamily",
    "StableAudio3Pipeline": "bsa_lightning.models.stable_audio_3.family:StableAudio3Family",
}
"""By pipeline class; those named by "module:Family" are imported when such a folder is read, since that is slow."""


def register_family(pipeline: str, family: type[Family]) -> None:
    """Registers the family that reads the model folders of a pipeline class, in place of any registered before.

    A package whose families the ``lightning`` command should know names them in its entry points instead, in the
    group ``bsa_lightning.families``. A run on several devices starts processes of its own, which import the module of
    ``family``: for such a run, ``family`` must be defined in a module that can be imported, not in the program itself.

    Args:
        pipeline: the name that ``model_index.json`` gives as its ``_class_name``, such as "AudioLDMPipeline".
        family: how such folders are read; it is made without arguments.
    """
    _families[pipeline] = family
    if family.__module__ != "__main__":  # which is another program in the processes of other devices
        named = {**_inherited(), pipeline: f"{family.__module__}:{family.__qualname__}"}
        os.environ[_INHERITED] = ";".join(f"{name}={place}" for name, place in named.items())


def resolve_folder(model: str | Path) -> Path:
    """The folder of ``model``: a path, a hub id, or the name of a built-in teacher.

    A name of the form "owner/name" is a hub id unless there is a local folder "owner"; its files are fetched once.

    Raises:
        UserError: if there is no such folder, and no such repository on the hub that can be had.
    """
    folder = Path(__file__).parent / str(model) if str(model) in BUILT_IN else Path(model)
    if folder.is_dir():
        return folder
    if isinstance(model, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not folder.parent.exists():
        return fetch_model(model)
    raise UserError(f'model is "{model}", but no such folder exists; name a model folder, or "tiny"')


def pipeline_name(model: str | Path) -> str:
    """The pipeline class that a model folder's index, or a student's provenance, names.

    Raises:
        UserError: if it names none, or one that no family reads.
    """
    folder = resolve_folder(model)
    index = folder / INDEX
    name = read_json(index).get("_class_name") if index.is_file() else provenance.read(folder).get("pipeline")
    if name is None:
        raise UserError(
            f"{folder} is not a model folder: it has no {INDEX}; name a whole one, or a student's, or make"
            " one of an original checkpoint with lightning convert"
        )
    known = _registered()
    if not isinstance(name, str) or name not in known:
        raise UserError(f'{folder} holds a "{name}", but only {", ".join(known)} can be read; name another folder')
    return name


def family_of(model: str | Path) -> Family:
    """What reads the folder of ``model``.

    Raises:
        UserError: as :func:`pipeline_name`.
    """
    pipeline = pipeline_name(model)
    family = _registered()[pipeline]
    if not isinstance(family, str):
        return family()
    module, _, name = family.partition(":")
    try:
        kind: type[Family] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{family}, which reads the folders of {pipeline}, cannot be imported ({error}); install the package that"
            " names it again, or remove it"
        ) from error
    return kind()


def _registered() -> dict[str, type[Family] | str]:
    """All families by pipeline class: those of entry points, unless one was registered for the same class."""
    installed = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {**{point.name: point.value for point in installed}, **_inherited(), **_families}


def _inherited() -> dict[str, str]:
    """The families that were registered in the process that started this one, for a run on several devices."""
    return dict(pair.split("=", 1) for pair in os.environ.get(_INHERITED, "").split(";") if pair)
