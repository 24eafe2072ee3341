"""The storage of prepared latents: safetensors shards, memory-mapped, and an index with the digest of every file.

A row is a clip: posterior mean and standard deviation, and each caption with its conditioning. Tensors are kept
as float16: that rounds a unit-scale latent by 1e-4 (rms), far below the posterior's own deviation. Sequences of
all captions of a shard lie end to end; ``<name>.ends`` says where each stops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsa_lightning.errors import UserError
from bsa_lightning.files import sha256_of_file, whole, write_json
from bsa_lightning.teachers.base import Conditioning

INDEX, NULL = "index.json", "null.safetensors"
_FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """One file of clips."""

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


@dataclass(frozen=True)
class EncodedClip:
    """A clip on its way into the store; ``conditioning`` has an entry for each caption."""

    id: str
    captions: list[str]
    mean: Tensor
    std: Tensor
    conditioning: list[dict[str, Tensor]]


def write_shard(path: Path, clips: Sequence[EncodedClip], *, sequences: Sequence[str]) -> Shard:
    """Writes clips as one file, with ids and captions in a JSON file beside it that is written last."""
    from safetensors.torch import save_file

    rows = [row for clip in clips for row in clip.conditioning]
    tensors = {"mean": torch.stack([c.mean for c in clips]), "std": torch.stack([c.std for c in clips])}
    for name in rows[0]:
        tensors[name] = (torch.cat if name in sequences else torch.stack)([row[name] for row in rows])
    tensors = {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in tensors.items()}
    tensors["captions.ends"] = torch.tensor([len(clip.captions) for clip in clips]).cumsum(0)
    for name in sequences:
        tensors[f"{name}.ends"] = torch.tensor([len(row[name]) for row in rows]).cumsum(0)
    with whole(path) as partial:
        save_file(tensors, partial)
    shard = Shard(path.name, len(clips), path.stat().st_size, sha256_of_file(path))
    texts = {"ids": [clip.id for clip in clips], "captions": [clip.captions for clip in clips]}
    write_json(_texts(path), {**asdict(shard), **texts})
    return shard


def finished_shard(path: Path) -> Shard | None:
    """The shard at ``path`` if it was written whole and still is what was written."""
    try:
        written = json.loads(_texts(path).read_text())
        shard = Shard(*(written[name] for name in Shard.__dataclass_fields__))
    except (OSError, ValueError, KeyError):
        return None
    return shard if path.is_file() and sha256_of_file(path) == shard.sha256 else None


def write_index(folder: Path, *, request: Mapping[str, Any], shards: Sequence[Shard], null: Conditioning) -> None:
    """Completes a store: until the index is there, the folder is not one."""
    from safetensors.torch import save_file

    rows = null.rows()[0]
    with whole(folder / NULL) as partial:
        save_file({name: tensor.float().contiguous() for name, tensor in rows.items()}, partial)
    files = [{**asdict(shard), "texts_sha256": sha256_of_file(_texts(folder / shard.file))} for shard in shards]
    write_json(
        folder / INDEX, {"format": _FORMAT, **request, "null_sha256": sha256_of_file(folder / NULL), "files": files}
    )


class LatentReader:
    """Random access to a store of prepared latents.

    Args:
        folder: what ``lightning prepare`` wrote.

    Raises:
        UserError: if it is not a whole store, or a file has another size than the index says.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.folder = Path(folder)
        if not (self.folder / INDEX).is_file():
            raise UserError(f"{folder} holds no prepared latents (no {INDEX}); make them with lightning prepare")
        self.index: dict[str, Any] = json.loads((self.folder / INDEX).read_text())
        self.sequences: tuple[str, ...] = tuple(self.index["sequences"])
        self.captions: list[list[str]] = []
        self._places: list[tuple[int, int]] = []
        for number, file in enumerate(self.index["files"]):
            path = self.folder / file["file"]
            size = path.stat().st_size if path.is_file() else 0
            if size != file["num_bytes"]:
                raise UserError(
                    f"{path} has {size} bytes where the index says {file['num_bytes']}; run lightning prepare again"
                )
            if not _texts(path).is_file():
                raise UserError(f"{_texts(path)} is missing; run lightning prepare again")
            self.captions += json.loads(_texts(path).read_text())["captions"]
            self._places += [(number, row) for row in range(file["num_clips"])]
        self.null = Conditioning.stack([load_file(self.folder / NULL)], sequences=self.sequences)
        self._open: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> Row:
        number, row = self._places[i]
        shard = self._shard(number)
        first, end = _span(shard["captions.ends"], row)
        conditioning = [
            {
                name: shard[name][
                    slice(*_span(shard[f"{name}.ends"], caption)) if name in self.sequences else caption
                ].float()
                for name in self.index["conditioning"]
            }
            for caption in range(first, end)
        ]
        return Row(shard["mean"][row].float(), shard["std"][row].float(), self.captions[i], conditioning)

    def __getstate__(self) -> dict[str, Any]:
        """Workers map the files anew."""
        return {**self.__dict__, "_open": {}}

    def _shard(self, number: int) -> dict[str, Tensor]:
        """The memory-mapped tensors of a file; only what is read is loaded."""
        from safetensors import safe_open

        if number not in self._open:
            with safe_open(self.folder / self.index["files"][number]["file"], framework="pt") as file:
                self._open[number] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return self._open[number]

    def verify(self) -> None:
        """Reads every file against its digest; no format notices flipped bytes by itself.

        Raises:
            UserError: naming the first damaged file.
        """
        digests = {self.folder / NULL: self.index["null_sha256"]}
        for file in self.index["files"]:
            path = self.folder / file["file"]
            digests |= {path: file["sha256"], _texts(path): file["texts_sha256"]}
        for path, sha256 in digests.items():
            if sha256_of_file(path) != sha256:
                raise UserError(f"{path} is damaged; delete it and run lightning prepare again")


def _texts(shard: Path) -> Path:
    """Where the ids and captions of a shard lie."""
    return shard.with_suffix(".json")


def _span(ends: Tensor, i: int) -> tuple[int, int]:
    return int(ends[i - 1]) if i else 0, int(ends[i])
