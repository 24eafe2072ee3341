"""What undistilled teachers sample, kept on disk: it is the same for every student that is compared with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bsa_lightning.files import write_tensors
from bsa_lightning.teachers.base import Conditioning
from bsa_lightning.teachers.folder import folder_sha256

_SAMPLER = "DDIM on the trailing grid, 1"
"""What made the latents; a change must change this."""


class SampledBatch(NamedTuple):
    """A batch of final latents, and what it took."""

    latents: Tensor
    nfe: int
    """Network evaluations of all clips together."""
    seconds: float
    """A clip."""


class SampleCache:
    """Sampled batches, one file each, named after the digest of all that decides what it holds.

    Args:
        folder: for the files; none keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._hashes: dict[Path, str] = {}

    def get(
        self,
        make: Callable[[], SampledBatch],
        *,
        model: Path,
        num_steps: int,
        guidance_scale: float,
        noise: Tensor,
        conditioning: Conditioning,
        null: Conditioning,
    ) -> SampledBatch:
        """What ``make`` gives, or gave when it was last asked the same in the same precision on a like device."""
        if self.folder is None:
            return make()
        if model not in self._hashes:
            self._hashes[model] = folder_sha256(model)
        kind = noise.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else noise.dtype
        asked = [_SAMPLER, torch.__version__, kind, str(dtype), self._hashes[model], num_steps, guidance_scale]
        path = self.folder / f"{_digest(asked, noise, conditioning, null)}.safetensors"
        try:
            found = load_file(path, device=str(noise.device))
        except (OSError, SafetensorError):
            batch = make()
            numbers = {"nfe": torch.tensor(batch.nfe), "seconds": torch.tensor(batch.seconds, dtype=torch.float64)}
            write_tensors(path, {"latents": batch.latents.contiguous(), **numbers})
            return batch
        return SampledBatch(found["latents"], int(found["nfe"]), float(found["seconds"]))


def _digest(asked: list[object], noise: Tensor, conditioning: Conditioning, null: Conditioning) -> str:
    digest = hashlib.sha256(json.dumps(asked).encode())
    parts = {f"{kind}.{name}": t for kind, c in (("cond", conditioning), ("null", null)) for name, t in _named(c)}
    for name, tensor in {"noise": noise, **parts}.items():
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _named(conditioning: Conditioning) -> list[tuple[str, Tensor]]:
    return [*conditioning.tensors.items(), *((f"{name}.mask", mask) for name, mask in conditioning.masks.items())]
