"""The recordings of a list read once before any is encoded: which cannot be read, are silent, clipped or cut."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.audio import Recording
from bsa_lightning.data.clips import Clips
from bsa_lightning.models.base import Codec

_log = logging.getLogger(__name__)


@dataclass
class Inspection:
    """What was found, by the ids of clips."""

    num_clips: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    """The reason for each."""
    silent: list[str] = field(default_factory=list)
    other_channels: list[str] = field(default_factory=list)
    """Those of the silent ones whose file has sound in channels that are not heard."""
    clipped: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)

    def add(self, name: str, found: Recording | UserError) -> None:
        """Counts what was found about one clip."""
        self.num_clips += 1
        if isinstance(found, UserError):
            self.unreadable[name] = str(found)
            return
        for kind in ("silent", "other_channels", "clipped", "cut"):
            if getattr(found, kind):
                getattr(self, kind).append(name)

    def tell(self, seconds: float) -> None:
        """Says in the log how many recordings are silent, clipped, or cut to ``seconds``."""
        for names, what in (
            (self.unreadable, "cannot be read and were left out"),
            (self.silent, "are silent"),
            (
                self.other_channels,
                "are silent in the channels that are heard but not in others; set the clips' channels to mean to hear"
                " all",
            ),
            (self.clipped, "are clipped"),
            (self.cut, f"are longer than a clip and were cut to {seconds:g} s"),
        ):
            if names:
                some = ", ".join(list(names)[:3]) + (", ..." if len(names) > 3 else "")
                _log.warning("%d of %d recordings %s: %s", len(names), self.num_clips, what, some)


def inspect(clips: Clips, places: Sequence[int], codec: Codec, *, title: Path) -> Inspection:
    """Reads the recordings of the clips at ``places``, to the end, on all processors.

    That takes a small part of the time that encoding takes. Every file that cannot be read is in the log, with the
    reason; made sound is not looked at.

    Raises:
        UserError: if more recordings cannot be read than the clips can spare.
    """
    seconds = codec.num_samples / codec.sample_rate

    def look(place: int) -> Recording | UserError | None:
        try:
            return clips.recording(place, seconds=seconds, num_channels=codec.num_channels)
        except UserError as error:
            return error

    found = Inspection()
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        looked = tqdm(pool.map(look, places), total=len(places), desc=f"check {title}", unit="clip", disable=not places)
        for place, recording in zip(places, looked, strict=True):
            if recording is not None:
                found.add(clips.id(place), recording)
    for reason in found.unreadable.values():
        _log.warning("%s", reason)
    clips.spare(found.unreadable)
    return found
