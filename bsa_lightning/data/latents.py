"""The storage of prepared latents: Arrow shards, memory-mapped, and an index with the digest of every file.

A row is a clip: posterior mean and standard deviation, and each caption with its conditioning. Tensors are kept
as float16: that rounds a unit-scale latent by 1e-4 (rms), far below the posterior's own deviation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bsa_lightning.errors import UserError
from bsa_lightning.files import sha256_of_file, whole, write_json
from bsa_lightning.teachers.base import Conditioning

INDEX, NULL = "index.json", "null.safetensors"
_DTYPE = np.float16
_FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """One Arrow file of the store."""

    file: str
    num_clips: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Row:
    """A stored clip: latent mean and std (*latent_shape), and for each caption its conditioning tensors, float32."""

    mean: Tensor
    std: Tensor
    captions: list[str]
    conditioning: list[dict[str, Tensor]]


def write_shard(path: Path, rows: Sequence[Mapping[str, Any]]) -> Shard:
    """Writes rows (id, captions, mean, std, and a list of tensors for every conditioning name) as one Arrow file."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {
        name: [_to_bytes(row[name]) for row in rows] for name in rows[0] if name not in ("id", "captions")
    }
    table = pa.table({"id": [r["id"] for r in rows], "captions": [r["captions"] for r in rows], **columns})
    with whole(path) as partial, pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    shard = Shard(path.name, len(rows), path.stat().st_size, sha256_of_file(path))
    write_json(path.with_suffix(".json"), asdict(shard))
    return shard


def finished_shard(path: Path) -> Shard | None:
    """The shard at ``path`` if it was written whole and still is what was written."""
    try:
        shard = Shard(**json.loads(path.with_suffix(".json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return shard if path.is_file() and sha256_of_file(path) == shard.sha256 else None


def write_index(folder: Path, *, request: Mapping[str, Any], shards: Sequence[Shard], null: Conditioning) -> None:
    """Completes a store: until the index is there, the folder is not one."""
    from safetensors.torch import save_file

    rows = null.rows()[0]
    with whole(folder / NULL) as partial:
        save_file({name: tensor.float().contiguous() for name, tensor in rows.items()}, partial)
    files = [asdict(shard) for shard in shards]
    write_json(folder / INDEX, {"format": _FORMAT, **request, "null_sha256": sha256_of_file(folder / NULL), "files": files})


class LatentReader:
    """Random access to a store of prepared latents.

    Args:
        folder: what ``lightning prepare`` wrote.

    Raises:
        UserError: if it is not a whole store, or a file has another size than the index says.
    """

    def __init__(self, folder: Path) -> None:
        from datasets import Dataset, concatenate_datasets
        from safetensors.torch import load_file

        self.folder = Path(folder)
        if not (self.folder / INDEX).is_file():
            raise UserError(f"{folder} holds no prepared latents (no {INDEX}); make them with lightning prepare")
        self.index: dict[str, Any] = json.loads((self.folder / INDEX).read_text())
        for file in self.index["files"]:
            path = self.folder / file["file"]
            size = path.stat().st_size if path.is_file() else 0
            if size != file["num_bytes"]:
                raise UserError(
                    f"{path} has {size} bytes where the index says {file['num_bytes']}; run lightning prepare again"
                )
        self.sequences: tuple[str, ...] = tuple(self.index["sequences"])
        self._shapes: dict[str, list[int]] = self.index["conditioning"]
        self._data = concatenate_datasets(
            [Dataset.from_file(str(self.folder / file["file"])) for file in self.index["files"]]
        )
        self.null = Conditioning.stack([load_file(self.folder / NULL)], sequences=self.sequences)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> Row:
        row = self._data[i]
        shape = self.index["latent_shape"]
        conditioning = [
            {name: _from_bytes(row[name][caption], size) for name, size in self._shapes.items()}
            for caption in range(len(row["captions"]))
        ]
        return Row(_from_bytes(row["mean"], shape), _from_bytes(row["std"], shape), row["captions"], conditioning)

    def verify(self) -> None:
        """Reads every file against its digest; no format notices flipped bytes by itself.

        Raises:
            UserError: naming the first damaged file.
        """
        for file in [*self.index["files"], {"file": NULL, "sha256": self.index["null_sha256"]}]:
            if sha256_of_file(self.folder / file["file"]) != file["sha256"]:
                raise UserError(f"{self.folder / file['file']} is damaged; delete it and run lightning prepare again")


def _to_bytes(value: Tensor | Sequence[Tensor]) -> bytes | list[bytes]:
    if isinstance(value, Tensor):
        return value.cpu().numpy().astype(_DTYPE).tobytes()
    return [tensor.cpu().numpy().astype(_DTYPE).tobytes() for tensor in value]


def _from_bytes(data: bytes, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=_DTYPE).astype(np.float32)).reshape(list(shape))
