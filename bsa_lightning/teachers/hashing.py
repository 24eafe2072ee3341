"""Content hashes of model files: what fingerprints and provenance are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from bsa_lightning.files import sha256_of_file

_SUFFIXES = (".json", ".safetensors", ".bin", ".model", ".py", ".jinja")
_NAMES = ("vocab.txt", "merges.txt")


def model_files(part: Path) -> list[Path]:
    """The files below a folder that belong to a model, in order.

    Only kinds that a library reads count: neither hidden files, such as ``.DS_Store`` and those of ``.git``, nor notes
    and the backups of editors.
    """
    return sorted(
        path
        for path in part.rglob("*")
        if (path.suffix in _SUFFIXES or path.name in _NAMES)
        and not any(name.startswith(".") for name in path.relative_to(part).parts)
        and path.is_file()
    )


def digests_of(part: Path) -> dict[str, str]:
    """Hex digest of each model file below ``part``, by its path from the folder that ``part`` is in."""
    return {path.relative_to(part.parent).as_posix(): sha256_of_file(path) for path in model_files(part)}


def combined(digests: Mapping[str, str]) -> str:
    """One hex digest over names and digests of files."""
    digest = hashlib.sha256()
    for name, sha256 in digests.items():
        digest.update(f"{name}\0".encode() + bytes.fromhex(sha256))
    return digest.hexdigest()


def sha256_of(*folders: Path) -> str:
    """One digest over names and bytes of all model files below ``folders``, wherever the folders lie."""
    return combined({name: sha256 for folder in folders for name, sha256 in digests_of(folder).items()})
