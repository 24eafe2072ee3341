"""Which shards of a store stay when its list of clips changes, and which are to be made."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bsa_lightning.data.clips import Clips
from bsa_lightning.data.latents import Finished, Shard


@dataclass(frozen=True)
class Work:
    """A shard of the store to come: clips ``items`` of the list, in a file of this name."""

    file: str
    items: range
    shard: Shard | None
    """What is there already; ``None`` is to be made."""


def plan(clips: Clips, finished: Sequence[Finished], *, shard_size: int) -> list[Work]:
    """Cuts a list of clips into shards, so that those that are finished stay wherever they fit.

    A finished shard stays if its clips follow each other in the list, in the same order and with the same captions.
    What lies between is cut into shards of ``shard_size``. A new file gets the name of its place in the store, or one
    after its clips where a finished shard has that name: nothing of the store as it was is written over, so that it
    stays whole until the new index replaces the old.

    Args:
        clips: the list.
        finished: shards on the disk.
        shard_size: clips of a new shard, at most.
    """
    by_first: defaultdict[str, list[Finished]] = defaultdict(list)
    for found in sorted(finished, key=lambda found: -len(found.ids)):
        by_first[found.ids[0]].append(found)
    names = {found.shard.file for found in finished}
    works: list[Work] = []
    first = place = 0
    while place < len(clips):
        fitting = next((found for found in by_first[clips.id(place)] if _fits(clips, place, found)), None)
        if fitting is None:
            place += 1
            continue
        works += _new(clips, range(first, place), len(works), shard_size, names)
        first = place + len(fitting.ids)
        works.append(Work(fitting.shard.file, range(place, first), fitting.shard))
        place = first
    return works + _new(clips, range(first, len(clips)), len(works), shard_size, names)


def _new(clips: Clips, items: range, number: int, shard_size: int, names: set[str]) -> list[Work]:
    parts = [items[start : start + shard_size] for start in range(0, len(items), shard_size)]
    return [Work(_name(clips, part, place, names), part, None) for place, part in enumerate(parts, start=number)]


def _name(clips: Clips, items: range, number: int, names: set[str]) -> str:
    name = f"shard-{number:05d}.safetensors"
    if name not in names:
        return name
    content = json.dumps([[clips.id(i), clips.captions(i)] for i in items])
    return f"shard-{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"


def _fits(clips: Clips, place: int, found: Finished) -> bool:
    return place + len(found.ids) <= len(clips) and all(
        (clips.id(place + i), clips.captions(place + i)) == (found.ids[i], found.captions[i])
        for i in range(len(found.ids))
    )
