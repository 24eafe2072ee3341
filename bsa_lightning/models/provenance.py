"""``provenance.json`` of a model folder: its origin, how it is sampled, and the digests of its files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.models.hashing import combined, digests_of

PROVENANCE = "provenance.json"
NETWORK_PARTS = ("unet", "transformer", "scheduler")
"""The subfolders of the network and its scheduler, which the entry ``sha256`` is the digest of."""
_STUDENT = ("pipeline", "teacher", "weighting", "round", "num_steps", "guidance", "guidance_scale")
PROGRESSIVE = "progressive"
"""The method of distillation of the students of earlier versions, whose provenance does not name one."""
INDEX = "model_index.json"
"""The file of a complete model folder that names its pipeline class and its parts."""


def read(folder: Path) -> dict[str, Any]:
    """The content of ``provenance.json``, empty if the folder does not have this file.

    Raises:
        UserError: if it cannot be read, or an entry is of the wrong kind.
    """
    path = folder / PROVENANCE
    if not path.exists() and not path.is_symlink():
        return {}
    content = read_json(path)
    for name, (valid, meaning) in _ENTRIES.items():
        if name in content and not valid(content[name]):
            raise UserError(f"{name} is {json.dumps(content[name])} in {path}, but must be {meaning}; correct it")
    return content


def read_student(folder: Path) -> dict[str, Any]:
    """The provenance of a student in the ``rounds/`` of a run.

    Raises:
        UserError: if it cannot be read, an entry is missing, or the name of the folder is that of another round.
    """
    found = read(folder)
    if missing := [name for name in _STUDENT if name not in found]:
        raise UserError(
            f"{folder} is not the folder of a run's student: its {PROVENANCE} has no {missing[0]}; restore that file"
        )
    if folder.name != (name := f"{found['round']}-{found['num_steps']}steps"):
        raise UserError(
            f"{folder} contains the student {name} according to its {PROVENANCE}; rename the folder to that"
        )
    return found


def described(provenance: Mapping[str, Any], folder: Path) -> str:
    """What a model is, for the records of models that are made from it: without paths of this machine.

    Args:
        provenance: the provenance of the model.
        folder: the folder of the model, whose name is the last resort.
    """
    if named := provenance.get("source") or provenance.get("name"):
        return str(named)
    if "fine_tuned_from" in provenance:
        return f"a model fine-tuned from {_portable(provenance['fine_tuned_from'])}"
    if "weighting" in provenance and "teacher" in provenance:
        return f"a {provenance.get('num_steps')}-step student of {_portable(provenance['teacher'])}"
    return folder.name


def lineage_of_teacher(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The entries of a student's provenance on what its teacher was made from, empty for a teacher with a name."""
    if "fine_tuned_from" not in provenance or provenance.get("source") or provenance.get("name"):
        return {}
    return {"teacher_fine_tuned_from": _portable(provenance["fine_tuned_from"])}


def _portable(name: str) -> str:
    """The last part of an absolute path, which would mean nothing to others; any other name as it is."""
    return Path(name).name if Path(name).is_absolute() else name


def write(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Writes ``provenance.json`` of a complete model folder.

    The entry ``files`` is added with the digest of each model file, and ``sha256`` with the one digest of network and
    scheduler.

    Args:
        folder: the folder.
        provenance: the other entries.
    """
    parts = sorted(path for path in folder.iterdir() if path.is_dir())
    network = [folder / name for name in NETWORK_PARTS if (folder / name).is_dir()]
    files = {name: sha256 for part in parts for name, sha256 in digests_of(part).items()}
    content = {**provenance, "sha256": combined(_of(files, *(part.name for part in network))), "files": files}
    (folder / PROVENANCE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_identity(folder: Path) -> None:
    """Checks that the network and scheduler of a folder have the digest ``sha256`` of its provenance.

    If the provenance contains the digests of the files, which are verified when the files are read, only these digests
    are compared here.

    Raises:
        UserError: if the digests differ.
    """
    provenance = read(folder)
    files = provenance.get("files")
    found = combined(_of(files, *NETWORK_PARTS)) if files is not None else folder_sha256(folder)
    if provenance.get("sha256", found) != found:
        raise UserError(
            f"{folder} is damaged or was changed, since its files do not have the digests in {PROVENANCE};"
            " train or copy it again"
        )


def folder_sha256(folder: Path) -> str:
    """The digest of the network and its scheduler, which identifies a teacher or student."""
    parts = [folder / name for name in NETWORK_PARTS if (folder / name).is_dir()]
    return combined({name: sha256 for part in parts for name, sha256 in digests_of(part).items()})


def _of(files: Mapping[str, str], *parts: str) -> dict[str, str]:
    """The digests of the files of ``parts``, in the order of the parts."""
    return {name: sha256 for part in parts for name, sha256 in files.items() if name.startswith(f"{part}/")}


def is_integer(value: object, *, at_least: int) -> TypeGuard[int]:
    """Whether ``value`` is an int, not a bool, and at least ``at_least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def is_number(value: object, *, at_least: float) -> TypeGuard[float]:
    """Whether ``value`` is a finite int or float, not a bool, and at least ``at_least``."""
    return isinstance(value, int | float) and not isinstance(value, bool) and at_least <= value < math.inf


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_sampling(value: object) -> bool:
    return isinstance(value, dict) and {"num_latents", "num_steps", "guidance_scale", "seed"} <= value.keys()


_TEXT = (_is_text, "a text")
_DIGEST = (_is_digest, "a SHA-256 digest of 64 hexadecimal digits")
_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "pipeline": _TEXT,
    "teacher": _TEXT,
    "teacher_sha256": _DIGEST,
    "sha256": _DIGEST,
    "files": (
        lambda value: isinstance(value, dict) and all(map(_is_digest, value.values())),
        "an object that gives each file's SHA-256 digest",
    ),
    "name": _TEXT,
    "source": _TEXT,
    "fine_tuned_from": _TEXT,
    "teacher_fine_tuned_from": _TEXT,
    "licence": _TEXT,
    "method": _TEXT,
    "weighting": _TEXT,
    "weighting_parameters": (lambda value: isinstance(value, dict), "an object of numbers"),
    "round": (lambda value: is_integer(value, at_least=1), "a whole number of at least 1"),
    "updates": (lambda value: is_integer(value, at_least=0), "a whole number of at least 0"),
    "data": _TEXT,
    "adapter": (
        lambda value: isinstance(value, dict) and {"rank", "sha256"} <= value.keys(),
        "an object with rank and sha256",
    ),
    "sampled_latents": (_is_sampling, "an object with num_latents, num_steps, guidance_scale and seed"),
}
"""For each entry, its check and what it must be; ``SamplingSettings`` checks the entries on sampling."""
