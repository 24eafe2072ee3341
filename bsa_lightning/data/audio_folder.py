"""An index of the audio files below a folder, in which the files that lists name are found by path."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.audio import suffixes

Parts = tuple[str, ...]


class FoundFile(NamedTuple):
    """A file below the folder: the parts of its path for comparison, and its path on the disk."""

    parts: Parts
    path: str


class AudioFolder:
    """The audio files in a folder and below it, except those whose names begin with a dot.

    Names are compared in Unicode's composed form (NFC), in which most lists are written; macOS stores the decomposed
    form.

    Args:
        folder: the folder.

    Raises:
        UserError: if the folder does not exist or cannot be searched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            why = "which is not a folder" if self.folder.exists() else "but no such folder exists"
            raise UserError(f'audio_dir is "{folder}", {why}; name the folder of the audio files')
        self._folders: set[Parts] = set()
        known = suffixes()
        self._files = [
            file for file in walk(self.folder, self._folders) if PurePosixPath(file.parts[-1]).suffix.lower() in known
        ]
        self._indices: dict[int, dict[tuple[bool, bool, Parts], list[str]]] = {}

    def find(self, location: str) -> str | None:
        """The path, relative to the folder, of the file that a list refers to; ``None`` if it is missing.

        The list may come from another machine, on which the file was below other folders or had another suffix. The
        result is the file whose path has the longest ending in common with ``location``. Among several, a file with the
        suffix of ``location`` is preferred to one with another suffix, and a file directly in the folder to one in a
        subfolder. If the subfolder that ``location`` names exists, the file is only searched for there.

        Args:
            location: an absolute or relative path in the notation of any system; parts up to the last ``..`` are
                ignored.

        Raises:
            UserError: if two files match equally well; the message names both.
        """
        parts = normal(location)
        for length in range(len(parts), 0, -1):
            ending = parts[-length:]
            if (found := self._ending(location, ending, deeper=True)) is not None:
                return found
            if length > 1 and ending[:-1] in self._folders:
                return self._ending(location, parts[-1:], deeper=False)
        return None

    def _index(self, length: int) -> Mapping[tuple[bool, bool, Parts], Sequence[str]]:
        """The paths of the files by the last ``length`` parts, so that many files of one name are found quickly.

        A key says whether a path has no more parts than these, whether the last part has its suffix, and the parts.
        """
        if length not in self._indices:
            index: defaultdict[tuple[bool, bool, Parts], list[str]] = defaultdict(list)
            for parts, path in self._files:
                if len(parts) >= length:
                    in_folder, ending = len(parts) == length, parts[-length:]
                    index[in_folder, True, ending].append(path)
                    index[in_folder, False, (*ending[:-1], PurePosixPath(ending[-1]).stem)].append(path)
            self._indices[length] = dict(index)
        return self._indices[length]

    def _ending(self, location: str, ending: Parts, *, deeper: bool) -> str | None:
        name = ending[-1]
        stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
        if suffix[1:].isdigit():  # a time such as 30.5 is not a suffix
            stem = name
        index = self._index(len(ending))
        for in_folder in (True, False) if deeper else (True,):
            for whole, last in ((True, name), (False, name), (False, stem)):
                fitting = index.get((in_folder, whole, (*ending[:-1], last)), ())
                if len(fitting) > 1:
                    raise UserError(
                        f'"{location}" may be {fitting[0]} or {fitting[1]} in {self.folder}; rename one of them, or'
                        " write more of the path in the list"
                    )
                if fitting:
                    return fitting[0]
        return None


def normal(location: str) -> Parts:
    """The parts of a path for comparison: in NFC, separated by either kind of slash, after the last ``..``."""
    parts = [part for part in unicodedata.normalize("NFC", location).replace("\\", "/").split("/") if part != ""]
    after = max((place + 1 for place, part in enumerate(parts) if part == ".."), default=0)
    return tuple(part for part in parts[after:] if part != ".")


def walk(folder: Path, folders: set[Parts] | None = None) -> Iterator[FoundFile]:
    """Yields each regular file in a folder and below it, except those whose names begin with a dot.

    Files are yielded in sorted order, folder by folder.

    Args:
        folder: the folder.
        folders: a set to which all endings of the paths of the folders below are added; ``None`` adds none.

    Raises:
        UserError: if a folder cannot be read.
    """
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        place, above = pending.pop()
        try:
            status = (folder / place).stat()
            if (key := (status.st_dev, status.st_ino)) in above:
                continue  # a link to a folder that contains it
            with os.scandir(folder / place) as entries:
                visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            raise UserError(f"{folder / place} cannot be searched ({error.strerror}); make it readable") from error
        inner = []
        for entry in visible:
            path = os.path.join(place, entry.name)  # noqa: PTH118 - faster than Path for thousands of files
            if entry.is_dir():
                inner.append((path, above | {key}))
                if folders is not None:
                    folders.update(_endings(normal(path)))
            elif entry.is_file():
                yield FoundFile(normal(path), path)
        pending += reversed(inner)


def _endings(parts: Sequence[str]) -> Iterator[Parts]:
    return (tuple(parts[start:]) for start in range(len(parts)))
