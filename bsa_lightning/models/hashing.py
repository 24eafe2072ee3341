"""SHA-256 digests of model files and of networks, for fingerprints and provenance."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from bsa_lightning.common.files import sha256_of_file

if TYPE_CHECKING:
    from torch import nn  # commands that need no torch import this module

_FOREIGN = (".*", "*~", "#*#", "*.bak", "*.orig", "*.rej", "*.swp", "*.tmp", "*.md", "__pycache__", "Thumbs.db")
_READ = ("*.json", "*.safetensors", "*.bin", "*.model", "*.py", "*.jinja", "vocab.txt", "merges.txt")


def model_files(part: Path) -> list[Path]:
    """The files below a folder that belong to a model, sorted by path.

    Files of file managers, editors and version control do not belong to a model, nor do READMEs.
    """
    return sorted(
        path
        for path in part.rglob("*")
        if not any(_is_like(name, _FOREIGN) for name in path.relative_to(part).parts) and path.is_file()
    )


def is_read(name: str) -> bool:
    """Whether diffusers or transformers may read a file of this name without being asked to."""
    return _is_like(name.rpartition("/")[2], _READ)


def _is_like(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def digests_of(part: Path) -> dict[str, str]:
    """The digest of each model file below the folder ``part``, by the path relative to the parent of ``part``."""
    return {path.relative_to(part.parent).as_posix(): sha256_of_file(path) for path in model_files(part)}


def combined(digests: Mapping[str, str]) -> str:
    """One digest of the names and digests of files, in the order of the mapping."""
    digest = hashlib.sha256()
    for name, sha256 in digests.items():
        digest.update(f"{name}\0".encode() + bytes.fromhex(sha256))
    return digest.hexdigest()


def sha256_of(*folders: Path) -> str:
    """One digest of the names and contents of all model files below ``folders``, wherever these folders are."""
    return combined({name: sha256 for folder in folders for name, sha256 in digests_of(folder).items()})


def sha256_of_network(network: nn.Module) -> str:
    """One digest of what decides the outputs of a network: its structure, its weights, and the files of our classes."""
    import torch

    classes = {type(part) for part in network.modules() if type(part).__module__.startswith(__package__.split(".")[0])}
    files = sorted({inspect.getfile(class_) for class_ in classes})
    digest = hashlib.sha256(repr(network).encode() + b"".join(Path(file).read_bytes() for file in files))
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
