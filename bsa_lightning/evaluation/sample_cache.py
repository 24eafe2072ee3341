"""A cache on disk for the samples of undistilled teachers, which are the same for all students compared with them."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.common.cache import read_shared_tensors, write_shared_tensors
from bsa_lightning.evaluation.systems import System
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import folder_sha256


class SampledBatch(NamedTuple):
    """A batch of final latents, and what it took to sample them."""

    latents: Tensor
    """The final latents, (batch, ...)."""
    nfe: int
    """The number of network evaluations of all clips together."""
    seconds: float
    """The time to sample a clip, in seconds."""


class SampleCache:
    """A cache of sampled batches, with a file for each, named after the digest of everything that decides its content.

    Args:
        folder: the folder of the files; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._hashes: dict[Path, str] = {}

    def get(
        self,
        make: Callable[[], SampledBatch],
        *,
        system: System,
        noise: Tensor,
        conditioning: Conditioning,
        null: Conditioning,
    ) -> SampledBatch:
        """Returns what ``make`` returns, from the cache if such a machine has sampled it in this precision before.

        Args:
            make: samples the batch.
            system: the system that is sampled.
            noise: the noise (batch, ...) that sampling starts from, on the device that it runs on.
            conditioning: the captions of the batch.
            null: the conditioning of the empty caption, one clip.
        """
        if self.folder is None:
            return make()
        if system.folder not in self._hashes:
            self._hashes[system.folder] = folder_sha256(system.folder)
        kind = noise.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else noise.dtype
        decided_by = [system.sampler.fingerprint, torch.__version__, _machine(kind), str(dtype)]
        asked = [
            *decided_by,
            self._hashes[system.folder],
            system.num_steps,
            system.sampling_scale,
            conditioning.digest(noise),
            null.digest(),
        ]
        path = self.folder / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()}.safetensors"
        found = read_shared_tensors(path, device=str(noise.device))
        if found is None:
            batch = make()
            numbers = {"nfe": torch.tensor(batch.nfe), "seconds": torch.tensor(batch.seconds, dtype=torch.float64)}
            write_shared_tensors(path, {"latents": batch.latents.contiguous(), **numbers})
            return batch
        return SampledBatch(found["latents"], int(found["nfe"]), float(found["seconds"]))


def _machine(kind: str) -> str:
    """Returns the parts of the machine that decide the last bits of a sample, and the time that it takes."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or kind} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"
