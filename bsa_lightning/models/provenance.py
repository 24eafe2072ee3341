"""``provenance.json`` of a model folder: where it comes from, how it is sampled, and what its files were."""

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
"""Subfolders of the network and its schedule: ``sha256`` is theirs."""
_STUDENT = ("pipeline", "teacher", "weighting", "round", "num_steps", "guidance", "guidance_scale")
INDEX = "model_index.json"
"""The file of a whole model folder that names its pipeline class and its parts."""


def read(folder: Path) -> dict[str, Any]:
    """What ``provenance.json`` says; empty where a folder has none.

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
        UserError: as :func:`read`, if an entry is missing, or if the folder bears the name of another round.
    """
    found = read(folder)
    if lacking := [name for name in _STUDENT if name not in found]:
        raise UserError(f"{folder} is no student of a run: its {PROVENANCE} has no {lacking[0]}; bring that file back")
    if folder.name != (name := f"{found['round']}-{found['num_steps']}steps"):
        raise UserError(f"{folder} holds the student {name} by its {PROVENANCE}; give the folder that name back")
    return found


def write(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Writes the provenance of a whole model folder, with a digest of each of its model files.

    ``files`` holds the digests by name, ``sha256`` is the one digest of network and schedule.
    """
    parts = sorted(path for path in folder.iterdir() if path.is_dir())
    network = [folder / name for name in NETWORK_PARTS if (folder / name).is_dir()]
    files = {name: sha256 for part in parts for name, sha256 in digests_of(part).items()}
    content = {**provenance, "sha256": combined(_of(files, *(part.name for part in network))), "files": files}
    (folder / PROVENANCE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_identity(folder: Path) -> None:
    """Refuses a folder whose network or schedule is not the one that ``sha256`` of its provenance names.

    Where the provenance knows each file, these are checked as they are read, and here only that both agree.

    Raises:
        UserError: if they differ.
    """
    provenance = read(folder)
    files = provenance.get("files")
    found = combined(_of(files, *NETWORK_PARTS)) if files is not None else folder_sha256(folder)
    if provenance.get("sha256", found) != found:
        raise UserError(
            f"{folder} is damaged or was changed, since its {PROVENANCE} knows other files; train or copy it again"
        )


def folder_sha256(folder: Path) -> str:
    """Digest of the network and its schedule: what identifies a teacher or student."""
    parts = [folder / name for name in NETWORK_PARTS if (folder / name).is_dir()]
    return combined({name: sha256 for part in parts for name, sha256 in digests_of(part).items()})


def _of(files: Mapping[str, str], *parts: str) -> dict[str, str]:
    """Of all digests those of some parts, in their order."""
    return {name: sha256 for part in parts for name, sha256 in files.items() if name.startswith(f"{part}/")}


def is_whole(value: object, *, least: int) -> TypeGuard[int]:
    """Whether it is an int (no bool) of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_finite(value: object, *, least: float) -> TypeGuard[float]:
    """Whether it is a finite number (no bool) of at least ``least``."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < math.inf


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


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
    "licence": _TEXT,
    "weighting": _TEXT,
    "weighting_parameters": (lambda value: isinstance(value, dict), "an object of numbers"),
    "round": (lambda value: is_whole(value, least=1), "a whole number of at least 1"),
    "updates": (lambda value: is_whole(value, least=0), "a whole number of at least 0"),
    "data": _TEXT,
}
"""What an entry must be; :class:`~bsa_lightning.models.sampling_settings.SamplingSettings` checks how to sample."""
