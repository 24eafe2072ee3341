"""The storage of prepared latents: memory-mapped safetensors shards, and an index with the digest of each file.

Tensors are stored in float16, which rounds a latent of unit scale by 1e-4 (rms), far less than the posterior's own
standard deviation. The sequences of all captions of a shard are stored end to end, and ``<name>.ends`` contains the end
of each.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsa_lightning.common.files import sha256_of_file, write_json, write_tensors
from bsa_lightning.common.lists import parse_object
from bsa_lightning.data.index import FORMAT, INDEX, NULL, parse_index
from bsa_lightning.data.local_store import open_store
from bsa_lightning.data.store import damaged
from bsa_lightning.data.store_checks import check_shard, read_null, refuse_not_finite
from bsa_lightning.models.conditioning import Conditioning


@dataclass(frozen=True)
class Shard:
    """The entry of a file of clips in the index of a store."""

    file: str
    num_clips: int
    num_bytes: int
    sha256: str


SHARD_NAME = re.compile(r"shard-[0-9a-f]{5,64}\.safetensors")
_SHARD_FIELDS = ("file", "num_clips", "num_bytes", "sha256")


@dataclass(frozen=True)
class EncodedClip:
    """A clip as a store holds it.

    Args:
        mean: the mean of the posterior over the clip's scaled latent, (*latent_shape).
        std: the standard deviation of that posterior, (*latent_shape).
        captions: the captions of the clip, at least one.
        conditioning: the conditioning of each caption, one clip without padding.
    """

    mean: Tensor
    std: Tensor
    captions: list[str]
    conditioning: list[Conditioning]


def write_shard(path: Path, clips: Sequence[EncodedClip], *, ids: Sequence[str]) -> Shard:
    """Writes clips as one file in float16, and then their ids and captions as a JSON file beside it.

    Args:
        path: the safetensors file.
        clips: the clips, at least one.
        ids: the id of each clip.

    Returns:
        The shard's entry in the index of its store.
    """
    conditioning = [part for clip in clips for part in clip.conditioning]
    sequences = conditioning[0].masks.keys()
    tensors = {"mean": torch.stack([clip.mean for clip in clips]), "std": torch.stack([clip.std for clip in clips])}
    for name in conditioning[0].tensors:
        parts = [part.tensors[name] for part in conditioning]
        tensors[name] = torch.cat([part[0] for part in parts] if name in sequences else parts)
    tensors = {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in tensors.items()}
    tensors["captions.ends"] = torch.tensor([len(clip.captions) for clip in clips]).cumsum(0)
    for name in sequences:
        tensors[f"{name}.ends"] = torch.tensor([part.tensors[name].shape[1] for part in conditioning]).cumsum(0)
    write_tensors(path, tensors)
    shard = Shard(path.name, len(clips), path.stat().st_size, sha256_of_file(path))
    texts = {"ids": list(ids), "captions": [clip.captions for clip in clips]}
    write_json(path.with_name(_texts(path.name)), {**asdict(shard), **texts})
    return shard


@dataclass(frozen=True)
class FinishedShard:
    """A shard that is complete and undamaged on the disk, with the ids and captions of its clips."""

    shard: Shard
    ids: list[str]
    captions: list[list[str]]


def finished_shards(folder: Path) -> list[FinishedShard]:
    """The shards in a folder that are complete and undamaged, sorted by name."""
    found = [_finished(path) for path in sorted(folder.glob("shard-*.safetensors")) if SHARD_NAME.fullmatch(path.name)]
    return [finished for finished in found if finished is not None]


def _finished(path: Path) -> FinishedShard | None:
    try:
        written = parse_object(path.with_name(_texts(path.name)).read_bytes())
        ids, captions = written["ids"], written["captions"]
        shard = Shard(*(written[name] for name in _SHARD_FIELDS))
        found = Shard(path.name, len(ids), path.stat().st_size, sha256_of_file(path))
        texts = len(ids) == len(captions) > 0 and all(isinstance(name, str) for name in ids)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return FinishedShard(shard, ids, captions) if shard == found and texts else None


def write_index(folder: Path, *, request: Mapping[str, Any], shards: Sequence[Shard], null: Conditioning) -> None:
    """Writes the null conditioning and the index, with which a folder of shards becomes a store.

    Args:
        folder: the folder.
        request: further entries of the index.
        shards: the shards of the store, in order.
        null: the conditioning of the empty caption, one clip.
    """
    (clip,) = null.split()
    write_tensors(folder / NULL, {name: tensor[0].float().contiguous() for name, tensor in clip.tensors.items()})
    files = [{**asdict(shard), "texts_sha256": sha256_of_file(folder / _texts(shard.file))} for shard in shards]
    write_json(
        folder / INDEX, {"format": FORMAT, **request, "null_sha256": sha256_of_file(folder / NULL), "files": files}
    )


class LatentReader:
    """A reader of a store of prepared latents, with random access to its clips.

    Args:
        location: the folder that ``lightning prepare`` wrote, or its URL (s3://bucket/folder).
        cache: the folder in which the files of a URL are kept, see :class:`Prepared`.

    Raises:
        UserError: if the store is incomplete, a file has another size than in the index, or a file cannot be fetched.
    """

    def __init__(self, location: str | Path, cache: Path | None = None) -> None:
        self.store = open_store(location, cache)
        self.name = self.store.name
        self.index: dict[str, Any] = parse_index(self.store.index(), where=f"{self.name}/{INDEX}")
        self.sizes: list[int] = [file["num_clips"] for file in self.index["files"]]
        """The number of clips of each shard."""
        self._ends = list(accumulate(self.sizes))
        for file in self.index["files"]:
            self.store.check(file["file"], num_bytes=file["num_bytes"])
            self.store.check(_texts(file["file"]))
        self.null = read_null(self.store.read(NULL, sha256=self.index["null_sha256"]), self.index, where=self.name)
        self._open: dict[int, tuple[dict[str, Tensor], list[list[str]]]] = {}

    def __len__(self) -> int:
        """The number of clips."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, i: int) -> EncodedClip:
        """Clip ``i``, in float32."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        number = bisect_right(self._ends, i)
        row = i - self._ends[number] + self.sizes[number]
        shard, captions = self._shard(number)
        first, end = _span(shard["captions.ends"], row)
        conditioning = [self._conditioning(shard, caption) for caption in range(first, end)]
        return EncodedClip(shard["mean"][row].float(), shard["std"][row].float(), captions[row], conditioning)

    def _conditioning(self, shard: Mapping[str, Tensor], caption: int) -> Conditioning:
        """The conditioning of one of the captions of a shard."""
        tensors, sequences = {}, self.index["sequences"]
        for name in self.index["conditioning"]:
            span = _span(shard[f"{name}.ends"], caption) if name in sequences else (caption, caption + 1)
            stored = shard[name][slice(*span)].float()
            tensors[name] = stored[None] if name in sequences else stored
        return Conditioning.unpadded(tensors, sequences=sequences)

    def __getstate__(self) -> dict[str, Any]:
        """The state for a worker process, which maps the files itself."""
        return {**self.__dict__, "_open": {}}

    def fetch_ahead(self, number: int, stop: Callable[[], bool]) -> None:
        """Fetches the files of a shard before it is read, until ``stop`` returns True."""
        file = self.index["files"][number]
        self.store.fetch_ahead(_texts(file["file"]), sha256=file["texts_sha256"], stop=stop)
        self.store.fetch_ahead(file["file"], sha256=file["sha256"], num_bytes=file["num_bytes"], stop=stop)

    def _shard(self, number: int) -> tuple[dict[str, Tensor], list[list[str]]]:
        """The memory-mapped tensors of a shard, which are loaded when they are accessed, and its captions."""
        from safetensors import SafetensorError, safe_open

        if number not in self._open:
            file = self.index["files"][number]
            path = self.store.path(file["file"], sha256=file["sha256"], num_bytes=file["num_bytes"])
            texts = self.store.read(_texts(file["file"]), sha256=file["texts_sha256"])
            try:
                with safe_open(path, framework="pt") as tensors:
                    mapped = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
            except SafetensorError as error:
                raise damaged(path) from error
            captions = check_shard(mapped, texts, self.index, num_clips=file["num_clips"], where=str(path))
            self._open[number] = mapped, captions
        return self._open[number]

    def verify(self) -> None:
        """Compares the files on this machine with their digests, since safetensors does not detect flipped bits.

        Raises:
            UserError: if a file is damaged, or its tensors do not have the shapes that the index requires.
        """
        for number, file in enumerate(self.index["files"]):
            self.store.verify(file["file"], sha256=file["sha256"])
            self.store.verify(_texts(file["file"]), sha256=file["texts_sha256"])
            if self.store.has(file["file"], num_bytes=file["num_bytes"]) and self.store.has(_texts(file["file"])):
                refuse_not_finite(self._shard(number)[0], where=f"{self.name}/{file['file']}")


def _texts(shard: str) -> str:
    """The name of the file with the ids and captions of a shard."""
    return str(Path(shard).with_suffix(".json"))


def _span(ends: Tensor, i: int) -> tuple[int, int]:
    """The first and the last place, exclusive, of part ``i`` of parts that are stored end to end."""
    return int(ends[i - 1]) if i else 0, int(ends[i])
