"""Lists of one's own: CSV or JSON lines with the paths of audio files and their captions."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.lists import plain_text, read_csv, read_json_lines
from bsa_lightning.data.audio import Channels
from bsa_lightning.data.recordings import Columns, Recordings, refuse_repeated

SUFFIXES = (".csv", ".jsonl", ".json", ".ndjson")


@dataclass
class _Entry:
    """A clip of a list: its first line, its id, its path in the list, and its captions."""

    line: int
    id: str
    path: str
    captions: list[str] = field(default_factory=list)


class ClipList(Recordings):
    """A list of audio files with captions: a CSV file whose first line names the columns, or a file of JSON lines.

    Lines with the same path are one clip, with the captions of all of them. A path is taken literally, in Unicode's
    composed form (NFC); a list from another machine, whose files are elsewhere here, is for :class:`TangoManifest`.

    Args:
        file: the list, ``.csv``, ``.jsonl``, ``.ndjson`` or ``.json`` (one object per line).
        root: the folder that paths are relative to; ``None`` is the folder of the list.
        columns: the names of the columns, or of the entries of the JSON objects; ``None`` is ``audio`` and ``caption``.
        max_missing: the largest share of the clips, from 0 to 1, that may be missing on the disk or unreadable.
        channels: the channels of a file that are used: "first" for the first ones, or "mean" for the mean of all.

    Raises:
        UserError: if the list is malformed or has no such columns, too many clips are missing, or two clips have the
            same id.
    """

    def __init__(
        self,
        file: Path,
        root: Path | None = None,
        columns: Columns | None = None,
        max_missing: float = 0.05,
        channels: Channels = "first",
    ) -> None:
        super().__init__(str(file), max_missing=max_missing, channels=channels, remedy="correct root")
        self.file, self.root, self.columns = Path(file), root, Columns() if columns is None else columns
        self._folder = self.file.parent if root is None else Path(root)
        if root is not None and not self._folder.is_dir():
            why = "which is not a folder" if self._folder.exists() else "but no such folder exists"
            raise UserError(f'root is "{root}", {why}; name the folder that the paths of the list are relative to')
        entries = list(_entries(self.file, self.columns, self._folder).values())
        refuse_repeated(
            [entry.id for entry in entries],
            lambda place: f"{file} line {entries[place].line} ({entries[place].path})",
            remedy="give each an id of its own",
        )
        listing = _Listing(self._folder)
        found = [(entry, listing.find(entry.path)) for entry in entries]
        self._files = [path for _, path in found if path is not None]
        self._hold(
            [(entry.id, entry.captions) for entry, path in found if path is not None],
            missing=[entry.path for entry, path in found if path is None],
        )

    def source(self, i: int) -> Path:
        return self._folder / self._files[i]


def _rows(file: Path) -> Sequence[tuple[int, Mapping[str, object]]]:
    match file.suffix.lower():
        case ".csv":
            return read_csv(file, ())
        case ".jsonl" | ".ndjson" | ".json":
            return read_json_lines(file)
        case _:
            raise UserError(f"file is {file}, but must end in {', '.join(SUFFIXES)}; save the list as one of these")


def _entries(file: Path, columns: Columns, root: Path) -> dict[str, _Entry]:
    """The clips of a list by their paths."""
    rows = _rows(file)
    columns.check({name: None for _, row in rows for name in row}, where=str(file))
    entries: dict[str, _Entry] = {}
    for line, row in rows:
        where = f"{file} line {line}"
        path = _normal(plain_text(row.get(columns.audio), where=where, what=f'path in "{columns.audio}"'), root)
        name = path
        if columns.id is not None:
            name = columns.id_of(row, where=where)
        entry = entries.setdefault(path, _Entry(line, name, path))
        if entry.id != name:
            raise UserError(
                f'{file} lists {path} as "{entry.id}" (line {entry.line}) and as "{name}" (line {line}); give the file'
                " one id"
            )
        entry.captions.extend(columns.captions_of(row, where=where))
    return entries


def _normal(path: str, root: Path) -> str:
    """A path in NFC with slashes, relative to ``root`` if it is below it."""
    path = posixpath.normpath(unicodedata.normalize("NFC", path).replace("\\", "/"))
    if path.startswith("/") and PurePosixPath(path).is_relative_to(root.absolute()):
        return str(PurePosixPath(path).relative_to(root.absolute()))
    return path


class _Listing:
    """Finds files below a folder by reading each folder once, which is faster than asking for each of many files.

    Args:
        root: the folder that paths are relative to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, dict[str, str]] = {}

    def find(self, path: str) -> str | None:
        """The path on the disk of a regular file, relative to ``root`` unless absolute; ``None`` if it is missing.

        Args:
            path: the path in NFC; the disk may have another form.
        """
        folder, name = posixpath.split(path)
        if folder not in self._folders:
            self._folders[folder] = self._read(folder)
        return self._folders[folder].get(name)

    def _read(self, folder: str) -> dict[str, str]:
        """The paths of the regular files directly in a folder, by their names in NFC."""
        for form in dict.fromkeys([folder, unicodedata.normalize("NFD", folder)]):
            try:
                with os.scandir(self.root / form) as entries:
                    names = sorted(entry.name for entry in entries if entry.is_file())
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise UserError(
                    f"{self.root / form} cannot be searched ({error.strerror}); make it readable"
                ) from error
            # Of two names that are equal in NFC, the one in NFC is taken, which sorts last.
            return {unicodedata.normalize("NFC", name): posixpath.join(form, name) for name in names}
        return {}
