"""A cache of tensors that take long to compute, in folders that several runs share and the user may delete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bsa_lightning.common.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor


def user_cache(name: str) -> Path:
    """The path of ``bsa-lightning/<name>`` in the user's cache folder; its content may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bsa-lightning" / name


def write_shared_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file to a folder that several runs share.

    The file contains a digest of its tensors, which :func:`read_shared_tensors` verifies.
    """
    from safetensors.torch import save

    tensors = dict(sorted(tensors.items()))
    with atomic_write(path) as partial:
        partial.write_bytes(save(tensors, {"sha256": tensors_sha256(tensors)}))


def read_shared_tensors(path: Path, *, device: str) -> dict[str, Tensor] | None:
    """The tensors that :func:`write_shared_tensors` wrote, or ``None`` if the file does not exist or is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            written = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return {name: tensor.to(device) for name, tensor in tensors.items()} if written == tensors_sha256(tensors) else None


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """The hexadecimal SHA-256 digest of the names, types, shapes and values of tensors, in the order of the mapping."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
