"""A folder of audio files, searched once with all that is below it, in which lists find their files by path."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.audio import suffixes

Parts = tuple[str, ...]


class _File(NamedTuple):
    """A file below the folder: the parts of its path as they are compared, and the path as the disk has it."""

    parts: Parts
    path: str


class AudioFolder:
    """The audio files at or below a folder; names that begin with a dot are passed over.

    Names are compared in Unicode's composed form (NFC), which is how most lists are written, whatever form the disk
    has: macOS decomposes.

    Args:
        folder: the folder.

    Raises:
        UserError: if there is no such folder, or it cannot be searched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            why = "which is not a folder" if self.folder.exists() else "but no such folder exists"
            raise UserError(f'audio_dir is "{folder}", {why}; name the folder of the audio files')
        self._named: defaultdict[str, list[_File]] = defaultdict(list)
        self._stemmed: defaultdict[str, list[_File]] = defaultdict(list)
        self._folders: set[Parts] = set()
        known = suffixes()
        for parts, path in _walk(self.folder, self._folders):
            name = PurePosixPath(parts[-1])
            if name.suffix.lower() in known:
                file = _File(parts, path)
                self._named[parts[-1]].append(file)
                self._stemmed[name.stem].append(file)

    def find(self, location: str) -> str | None:
        """The file that a list means: its path relative to the folder, or ``None`` where it is missing.

        The list may have been written on another machine, with folders above the file that are not here and another
        suffix. So the location's longest ending that is the ending of a file's path decides, the file of the
        location's own suffix before those of others, and a file directly in the folder before those further down.
        Where the file's own folder is here, the file is not looked for in other ones.

        Args:
            location: a path, absolute or relative, of any system; what leads up (``..``) is dropped.

        Raises:
            UserError: if two files fit equally well, with both names.
        """
        parts = normal(location)
        for length in range(len(parts), 0, -1):
            ending = parts[-length:]
            if (found := self._ending(location, ending, deeper=True)) is not None:
                return found
            if length > 1 and ending[:-1] in self._folders:
                return self._ending(location, parts[-1:], deeper=False)
        return None

    def _ending(self, location: str, ending: Parts, *, deeper: bool) -> str | None:
        name = ending[-1]
        stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
        if suffix[1:].isdigit():  # a time such as 30.5, and no suffix
            stem = name
        groups = (self._named.get(name, ()), self._stemmed.get(name, ()), self._stemmed.get(stem, ()))
        for in_folder in (True, False) if deeper else (True,):
            for group in groups:
                fitting = [
                    file.path
                    for file in group
                    if file.parts[-len(ending) : -1] == ending[:-1] and (len(file.parts) == len(ending)) == in_folder
                ]
                if len(fitting) > 1:
                    raise UserError(
                        f'"{location}" may be {fitting[0]} or {fitting[1]} in {self.folder}; rename one of them, or'
                        " write more of the path in the list"
                    )
                if fitting:
                    return fitting[0]
        return None


def normal(location: str) -> Parts:
    """The parts of a path as they are compared: composed, of either kind of slash, from the last ``..`` on."""
    parts = [part for part in unicodedata.normalize("NFC", location).replace("\\", "/").split("/") if part != ""]
    after = max((place + 1 for place, part in enumerate(parts) if part == ".."), default=0)
    return tuple(part for part in parts[after:] if part != ".")


def _walk(folder: Path, folders: set[Parts]) -> Iterator[_File]:
    """Every regular file in sorted order; adds all endings of the paths of folders to ``folders``."""
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        place, above = pending.pop()
        try:
            status = (folder / place).stat()
            if (key := (status.st_dev, status.st_ino)) in above:
                continue  # a link to a folder that it is in
            with os.scandir(folder / place) as entries:
                visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            raise UserError(f"{folder / place} cannot be searched ({error.strerror}); make it readable") from error
        inner = []
        for entry in visible:
            path = os.path.join(place, entry.name)  # noqa: PTH118 - as text, many thousands of times
            if entry.is_dir():
                inner.append((path, above | {key}))
                folders.update(_endings(normal(path)))
            elif entry.is_file():
                yield _File(normal(path), path)
        pending += reversed(inner)


def _endings(parts: Sequence[str]) -> Iterator[Parts]:
    return (tuple(parts[start:]) for start in range(len(parts)))
