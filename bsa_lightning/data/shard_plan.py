"""The plan of the shards of a store: which of the finished ones are kept when its list of clips changes."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bsa_lightning.data.clips import Clips
from bsa_lightning.data.latents import FinishedShard, Shard


@dataclass(frozen=True)
class PlannedShard:
    """A shard that a store is to have.

    Args:
        file: the name of its file.
        items: the places of its clips in the list, from 0.
        kept: the finished shard that is kept, or ``None`` if the shard must be encoded.
    """

    file: str
    items: range
    kept: Shard | None


def plan_shards(clips: Clips, finished: Sequence[FinishedShard], *, shard_size: int) -> list[PlannedShard]:
    """Divides a list of clips into shards and keeps as many finished shards as possible.

    A finished shard is kept if its clips are consecutive in the list, in the same order and with the same captions. The
    clips between kept shards are divided into new shards of at most ``shard_size``. A new shard is named after its
    place in the store or, if a finished shard has that name, after a digest of its clips. No file of the old store is
    overwritten, so the old store remains valid until its index is replaced.

    Args:
        clips: the list of clips.
        finished: the shards on the disk.
        shard_size: the most clips of a new shard, at least 1.
    """
    by_first: defaultdict[str, list[FinishedShard]] = defaultdict(list)
    for found in sorted(finished, key=lambda found: -len(found.ids)):
        by_first[found.ids[0]].append(found)
    names = {found.shard.file for found in finished}
    planned: list[PlannedShard] = []
    first = place = 0
    while place < len(clips):
        fitting = next((found for found in by_first[clips.id(place)] if _fits(clips, place, found)), None)
        if fitting is None:
            place += 1
            continue
        planned += _new(clips, range(first, place), len(planned), shard_size, names)
        first = place + len(fitting.ids)
        planned.append(PlannedShard(fitting.shard.file, range(place, first), fitting.shard))
        place = first
    return planned + _new(clips, range(first, len(clips)), len(planned), shard_size, names)


def _new(clips: Clips, items: range, number: int, shard_size: int, names: set[str]) -> list[PlannedShard]:
    parts = [items[start : start + shard_size] for start in range(0, len(items), shard_size)]
    return [
        PlannedShard(_name(clips, part, place, names), part, None) for place, part in enumerate(parts, start=number)
    ]


def _name(clips: Clips, items: range, number: int, names: set[str]) -> str:
    name = f"shard-{number:05d}.safetensors"
    if name not in names:
        return name
    content = json.dumps([[clips.id(i), clips.captions(i)] for i in items])
    return f"shard-{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"


def _fits(clips: Clips, place: int, found: FinishedShard) -> bool:
    return place + len(found.ids) <= len(clips) and all(
        (clips.id(place + i), clips.captions(place + i)) == (found.ids[i], found.captions[i])
        for i in range(len(found.ids))
    )
