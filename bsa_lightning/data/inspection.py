"""Inspection of all recordings before any is encoded: which are unreadable, silent, clipped or cut."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.progress import progress
from bsa_lightning.data.clips import Clips
from bsa_lightning.data.recording import Recording
from bsa_lightning.data.recordings import BrokenSourceError
from bsa_lightning.models.base import Codec

_log = logging.getLogger(__name__)


@dataclass
class Inspection:
    """The findings of an inspection, as ids of clips."""

    num_clips: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    """The reason why a clip cannot be read, by its id."""
    silent: list[str] = field(default_factory=list)
    other_channels: list[str] = field(default_factory=list)
    """The silent clips whose file has sound in unused channels."""
    clipped: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    """The length of each recording that can be read, in seconds; 0 if it is unknown."""

    def add(self, name: str, found: Recording | UserError) -> None:
        """Adds the finding, or the error, about the clip with id ``name``."""
        self.num_clips += 1
        if isinstance(found, UserError):
            self.unreadable[name] = str(found)
            return
        self.lengths.append(found.seconds)
        for kind in ("silent", "other_channels", "clipped", "cut"):
            if getattr(found, kind):
                getattr(self, kind).append(name)

    def _left_out(self, seconds: float) -> str:
        """How much of the sound comes after the ends of the clips."""
        rest, whole = sum(max(0.0, length - seconds) for length in self.lengths), sum(self.lengths)
        return f"{rest:.1f} s of {whole:.1f} s ({rest / max(whole, 1e-9):.0%}) are left out"

    def log(self, seconds: float) -> None:
        """Logs the number of recordings of each kind, with some ids; clips are ``seconds`` long."""
        for names, kind in (
            (self.unreadable, "cannot be read and were left out"),
            (self.silent, "are silent"),
            (
                self.other_channels,
                "are silent in the channels that are heard but not in others; set the clips' channels to mean to hear"
                " all",
            ),
            (self.clipped, "are clipped"),
            (self.cut, f"are longer than a clip, of which the first {seconds:g} s are used; {self._left_out(seconds)}"),
        ):
            if names:
                some = ", ".join(list(names)[:3]) + (", ..." if len(names) > 3 else "")
                _log.warning("%d of %d recordings %s: %s", len(names), self.num_clips, kind, some)


def inspect(clips: Clips, places: Sequence[int], codec: Codec, *, title: Path) -> Inspection:
    """Reads recordings to their end, on all processors, which takes little time compared to encoding them.

    Each file that cannot be read is logged with the reason. Clips without a file are skipped.

    Args:
        clips: the clips.
        places: the places of the clips to inspect, from 0.
        codec: the codec that will encode the clips, which gives their length and number of channels.
        title: the name for the progress bar.

    Raises:
        UserError: if more recordings are unreadable than may be missing.
    """
    seconds = codec.num_samples / codec.sample_rate

    def look(place: int) -> Recording | UserError | None:
        try:
            return clips.inspect(place, seconds=seconds, num_channels=codec.num_channels)
        except BrokenSourceError:
            raise
        except UserError as error:
            return error

    found = Inspection()
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        looked = progress(
            pool.map(look, places), total=len(places), desc=f"check {title}", unit="clip", disable=not places
        )
        for place, recording in zip(places, looked, strict=True):
            if recording is not None:
                found.add(clips.id(place), recording)
    for reason in found.unreadable.values():
        _log.warning("%s", reason)
    clips.check_unreadable(found.unreadable)
    return found
