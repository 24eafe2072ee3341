"""Content hashes of model files: what fingerprints and provenance are made of."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(*folders: Path) -> str:
    """One digest over names and bytes of all files below ``folders``, wherever the folders lie."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{folder.name}/{path.relative_to(folder).as_posix()}\0".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
