"""Clips that are audio files, some of which may be missing or unreadable: what all sources of recordings share."""

from __future__ import annotations

import logging
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write, refuse_folder
from bsa_lightning.common.lists import plain_text
from bsa_lightning.common.ranges import check_number
from bsa_lightning.data import audio, recording
from bsa_lightning.data.audio import Channels
from bsa_lightning.data.clips import Clips
from bsa_lightning.data.sound_source import Source

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """The names of the columns of a table of clips, or of the entries of a JSON object.

    Args:
        audio: the column of the sound: paths of audio files in a list, audio in a data set.
        captions: the column of the captions, each row with one caption or a list of captions, or several such columns;
            of several columns, some may be empty.
        id: the column of the ids of the clips; ``None`` is the path in a list, and the number of the row in a data set.

    Raises:
        UserError: if no column of captions is named, or one column twice.
    """

    audio: str = "audio"
    captions: list[str] | str = "caption"
    id: str | None = None

    def __post_init__(self) -> None:
        if not self.of_captions:
            raise UserError("columns.captions is empty, but every clip needs a caption; name a column of captions")
        if repeated := [name for name in self.names if self.names.count(name) > 1]:
            raise UserError(f'columns names the column "{repeated[0]}" twice; name another for one of them')

    @property
    def of_captions(self) -> list[str]:
        """The columns of the captions."""
        return [self.captions] if isinstance(self.captions, str) else list(self.captions)

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        return [self.audio, *self.of_captions, *([] if self.id is None else [self.id])]

    def check(self, there: Collection[str], *, where: str) -> None:
        """Checks that a table has the columns.

        Raises:
            UserError: if it lacks some; the message begins with ``where`` and names the columns that there are.
        """
        if absent := [name for name in self.names if name not in there]:
            raise UserError(
                f"{where} has no column {', '.join(absent)} (it has {', '.join(map(str, there))}); say which to use"
                " with columns.audio, columns.captions and columns.id"
            )

    def id_of(self, row: Mapping[str, object], *, where: str) -> str:
        """The id of a row, which may be a text or a whole number.

        Raises:
            UserError: if the row has none; the message begins with ``where``.
        """
        value = row.get(str(self.id))
        number = isinstance(value, int) and not isinstance(value, bool)
        return plain_text(str(value) if number else value, where=where, what=f'text in "{self.id}"')

    def captions_of(self, row: Mapping[str, object], *, where: str) -> list[str]:
        """The captions of a row, at least one.

        Raises:
            UserError: if a caption is not text, or the row has none; the message begins with ``where``.
        """
        cells = [row.get(name) for name in self.of_captions]
        if len(cells) > 1:
            cells = [cell for cell in cells if cell not in (None, "", [])]
        several = [caption for cell in cells for caption in (cell if isinstance(cell, list) and cell else [cell])]
        return [plain_text(caption, where=where, what="caption") for caption in several or [None]]


class MissingClipsError(UserError):
    """The error for a list of which more clips are missing than may be.

    Args:
        text: the sentence for the user.
        missing: what was not found, as the list names it.
    """

    def __init__(self, text: str, missing: Sequence[str]) -> None:
        super().__init__(text)
        self.missing = list(missing)


class BrokenSourceError(UserError):
    """The error for a set of clips that cannot be read any further, unlike for a single recording that cannot."""


class Recordings(Clips):
    """Clips that are recordings; those that are missing are left out, and counted in the log.

    A subclass calls :meth:`_hold` in its constructor.

    Args:
        name: the name of the list for messages.
        max_missing: the largest share of the clips, from 0 to 1, that may be missing or unreadable.
        channels: the channels of a file that are used: "first" or "mean".
        remedy: what to do about missing clips, for messages.

    Raises:
        UserError: if a setting is out of its range.
    """

    def __init__(self, name: str, *, max_missing: float, channels: Channels, remedy: str) -> None:
        check_number("max_missing", max_missing, at_least=0, at_most=1)
        audio.refuse_channels(channels)
        self.name, self.max_missing, self.remedy = name, max_missing, remedy
        self.channels: Channels = channels
        self.variant = "" if channels == "first" else f"{channels} of channels"

    def _hold(self, items: Sequence[tuple[str, list[str]]], *, missing: Sequence[str] = ()) -> None:
        """Takes the id and the captions of each clip that is there, and the names of what is missing.

        Raises:
            MissingClipsError: if more is missing than may be, or nothing is there.
        """
        self._items, self.missing = items, missing
        self.num_listed = len(items) + len(missing)
        if missing:
            self._allow(len(missing), f"are missing on disk ({some(missing)})")
            _log.warning(
                "%s: %d of %d clips are missing on disk and are left out: %s",
                self.name, len(missing), self.num_listed, some(missing),
            )  # fmt: skip
        if not items:
            what = (
                f"none of the {len(missing)} clips of {self.name} is there" if missing else f"{self.name} has no clips"
            )
            raise MissingClipsError(f"{what}; {self.remedy}", missing)

    @abstractmethod
    def source(self, i: int) -> Source:
        """The file of clip ``i``, or its bytes.

        Raises:
            UserError: if it cannot be read.
        """

    def files(self) -> Iterable[Path]:
        """The files that hold the sound."""
        return (source for i in range(len(self)) if isinstance(source := self.source(i), Path))

    def sound_state(self) -> str:
        """The places, sizes and times of the files."""
        return "\n".join(state_of(file) for file in self.files())

    def __len__(self) -> int:
        return len(self._items)

    def id(self, i: int) -> str:
        return self._items[i][0]

    def captions(self, i: int) -> list[str]:
        return self._items[i][1]

    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        waveform = audio.read(
            self.source(i), sample_rate=sample_rate, num_channels=num_channels, channels=self.channels
        )
        return audio.fit_length(audio.normalise(waveform), num_samples=num_samples)

    def inspect(self, i: int, *, seconds: float, num_channels: int = 1) -> recording.Recording | None:
        return recording.inspect(self.source(i), seconds=seconds, num_channels=num_channels, channels=self.channels)

    def check_unreadable(self, unreadable: Mapping[str, str]) -> None:
        if unreadable:
            num_unusable = len(self.missing) + len(unreadable)
            also = f" (and {len(self.missing)} are missing on disk)" if self.missing else ""
            self._allow(num_unusable, f"cannot be used{also}: {some(list(unreadable.values()), between='; ')}")

    def _allow(self, num_unusable: int, why: str) -> None:
        if num_unusable > self.max_missing * self.num_listed:
            raise MissingClipsError(
                f"{self.name} lists {self.num_listed} clips of which {num_unusable} {why}, more than"
                f" max_missing={self.max_missing:g} allows; put the files right, {self.remedy} or raise max_missing",
                self.missing,
            )


def refuse_repeated(ids: Sequence[str], where: Callable[[int], str], *, remedy: str) -> None:
    """Refuses a list in which two clips have the same id in Unicode's composed form (NFC).

    Args:
        ids: the ids.
        where: a function from the place of a clip to the place in the list, for the message.
        remedy: what to do, for the message.

    Raises:
        UserError: if an id repeats; the message names both places.
    """
    first: dict[str, int] = {}
    for place, name in enumerate(ids):
        if (other := first.setdefault(unicodedata.normalize("NFC", name), place)) != place:
            raise UserError(f'{where(other)} and {where(place)} are both the clip "{name}"; {remedy}')


def write_missing(path: Path, missing: Sequence[str]) -> None:
    """Writes the names of what is missing, one per line, atomically; the file is empty if nothing is.

    Raises:
        UserError: if it cannot be written.
    """
    refuse_folder(path, setting="list_missing")
    with atomic_write(path) as partial:
        partial.write_text("".join(f"{name}\n" for name in missing), encoding="utf-8")
    _log.warning("%s lists what is missing (%d)", path, len(missing))


def some(names: Sequence[str], between: str = ", ") -> str:
    """The first three names, as a text."""
    return between.join(names[:3]) + (f"{between}..." if len(names) > 3 else "")


def state_of(file: Path) -> str:
    """The place, size and time of a file, or its place alone if it is gone."""
    try:
        found = file.stat()
    except OSError:
        return str(file.absolute())
    return f"{file.absolute()} {found.st_size} {found.st_mtime_ns}"
