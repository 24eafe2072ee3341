"""Manifests, which list audio files with captions (AudioCaps' CSV, Tango's JSON lines), and lists of captions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.lists import plain_text, read_csv, read_json_lines, read_lines
from bsa_lightning.common.ranges import check_number
from bsa_lightning.data.audio import Channels
from bsa_lightning.data.audio_folder import AudioFolder, Parts, normal
from bsa_lightning.data.recordings import Recordings, some

_log = logging.getLogger(__name__)


@dataclass
class _Entry:
    """A clip of a manifest: its first line, its name there, its file relative to the folder, and its captions."""

    line: int
    name: str
    file: str | None
    captions: list[str] = field(default_factory=list)


class _Manifest(Recordings):
    """Audio files with captions, which are found below a folder."""

    def __init__(
        self,
        manifest: Path,
        folder: AudioFolder,
        entries: Mapping[Parts, _Entry],
        max_missing: float,
        channels: Channels,
    ) -> None:
        super().__init__(str(manifest), max_missing=max_missing, channels=channels, remedy="correct audio_dir")
        self.manifest, self.folder = Path(manifest), folder.folder
        _refuse_shared(manifest, entries)
        there = [entry for entry in entries.values() if entry.file is not None]
        self._files = [str(entry.file) for entry in there]
        self._hold(
            [(self._id(entry), entry.captions) for entry in there],
            missing=[entry.name for entry in entries.values() if entry.file is None],
        )

    def _id(self, entry: _Entry) -> str:
        """The path of a clip's file below the folder, in NFC and with slashes."""
        return "/".join(normal(entry.file or entry.name))

    def source(self, i: int) -> Path:
        return self.folder / self._files[i]


class AudioCapsManifest(_Manifest):
    """The CSV of AudioCaps, ``audiocap_id,youtube_id,start_time,caption``, with one line per caption.

    The id of a clip is ``<youtube_id>_<start_time>``.

    Args:
        csv: the CSV file.
        audio_dir: the folder that contains, directly or in subfolders, the files ``<youtube_id>_<start_time>.*``,
            ``Y<youtube_id>.*`` or ``<audiocap_id>.*``.
        max_missing: the largest share of the clips, from 0 to 1, that may be missing on the disk or unreadable.
        channels: the channels of a file that are used: "first" for the first ones, as in Tango's published scores, or
            "mean" for the mean of all.

    Raises:
        UserError: if the list is malformed, too many clips are missing, a file matches two clips, or two files match
            one clip.
    """

    COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")

    def __init__(self, csv: Path, audio_dir: Path, max_missing: float = 0.05, channels: Channels = "first") -> None:
        check_number("max_missing", max_missing, at_least=0, at_most=1)
        rows = read_csv(Path(csv), self.COLUMNS)
        folder = AudioFolder(audio_dir)
        entries: dict[Parts, _Entry] = {}
        for line, row in rows:
            where = f"{csv} line {line}"
            video, start = (
                plain_text(row[column], where=where, what=column) for column in ("youtube_id", "start_time")
            )
            name = f"{video}_{start}"
            if (key := (video, start)) not in entries:
                names = filter(None, (name, f"Y{video}", row["audiocap_id"]))
                found = filter(None, map(folder.find, names))
                entries[key] = _Entry(line, name, next(found, None))
            entries[key].captions.append(plain_text(row["caption"], where=where, what="caption"))
        super().__init__(csv, folder, entries, max_missing, channels)
        self.csv, self.audio_dir = Path(csv), Path(audio_dir)

    def _id(self, entry: _Entry) -> str:
        return entry.name


class TangoManifest(_Manifest):
    """The JSON lines of Tango, each an object with ``location`` and ``captions`` (one caption or a list of captions).

    A location may be a path on another machine: the clip's file is the one below ``audio_dir`` whose path has the
    longest ending in common with it, whatever its suffix. The id of a clip is the path of its file relative to
    ``audio_dir``. Lines with the same location are one clip, with the captions of all of them.

    Args:
        jsonl: the file of JSON lines.
        audio_dir: the folder that contains the audio files, directly or in subfolders.
        max_missing: the largest share of the clips, from 0 to 1, that may be missing on the disk or unreadable.
        channels: the channels of a file that are used: "first" for the first ones, as in Tango's published scores, or
            "mean" for the mean of all.

    Raises:
        UserError: if the list is malformed, too many clips are missing, a file matches two clips, or two files match
            one clip.
    """

    def __init__(self, jsonl: Path, audio_dir: Path, max_missing: float = 0.05, channels: Channels = "first") -> None:
        check_number("max_missing", max_missing, at_least=0, at_most=1)
        rows = [
            (line, _location(row.get("location"), f"{jsonl} line {line}"), _captions(row, f"{jsonl} line {line}"))
            for line, row in read_json_lines(Path(jsonl))
        ]
        folder = AudioFolder(audio_dir)
        entries: dict[Parts, _Entry] = {}
        for line, location, captions in rows:
            key = normal(location)
            if key not in entries:
                entries[key] = _Entry(line, location, folder.find(location))
            entries[key].captions.extend(captions)
        _warn_of_other_folders(jsonl, entries)
        super().__init__(jsonl, folder, entries, max_missing, channels)
        self.jsonl, self.audio_dir = Path(jsonl), Path(audio_dir)


def read_captions(path: Path) -> list[str]:
    """The captions in a file, from which sound is generated.

    Args:
        path: a text file with one caption per line, a CSV file (.csv) with a column ``caption``, or JSON lines (.jsonl,
            .ndjson, .json) with ``captions``, of which the first is used.

    Raises:
        UserError: if the file does not contain captions or is malformed.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".csv":
            found: list[tuple[int, object]] = [(line, row["caption"]) for line, row in read_csv(path, ("caption",))]
        case ".jsonl" | ".json" | ".ndjson":
            found = [(line, _captions(row, f"{path} line {line}")[0]) for line, row in read_json_lines(path)]
        case _:
            found = list(read_lines(path))
    return [plain_text(caption, where=f"{path} line {line}", what="caption") for line, caption in found]


def _location(value: object, where: str) -> str:
    location = plain_text(value, where=where, what="location")
    if location.endswith(("/", "\\", "/.", "/..")) or not normal(location):
        raise UserError(f'{where} has the location "{location}", which is not the path of a file; name an audio file')
    return location


def _captions(row: Mapping[str, object], where: str) -> list[str]:
    """The captions of a line in Tango's format, one or more."""
    captions = row.get("captions")
    several = captions if isinstance(captions, list) and captions else [captions]
    return [plain_text(caption, where=where, what="caption") for caption in several]


def _warn_of_other_folders(manifest: Path, entries: Mapping[Parts, _Entry]) -> None:
    """Warns of clips that were found with fewer of their folders than the others, perhaps another clip of that name."""
    lost = {key: _num_lost(key, entry.file) for key, entry in entries.items() if entry.file is not None}
    least = min(lost.values(), default=0)
    if other := [entries[key] for key, number in lost.items() if number > least]:
        _log.warning(
            "%s: %d of %d clips are not where the list names them; files of that name in other folders were taken: %s",
            manifest, len(other), len(lost), some([f"{entry.name} ({entry.file})" for entry in other]),
        )  # fmt: skip


def _num_lost(location: Parts, file: str) -> int:
    """The number of the first parts of a location that the path of its file does not have; suffixes may differ."""
    pairs = zip(reversed(location[:-1]), reversed(normal(file)[:-1]), strict=False)
    return len(location) - 1 - sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _refuse_shared(manifest: Path, entries: Mapping[Parts, _Entry]) -> None:
    """Refuses a manifest in which two clips have the same file, since one of them would have the sound of the other."""
    first: dict[str, _Entry] = {}
    for entry in entries.values():
        if entry.file is None:
            continue
        other = first.setdefault(entry.file, entry)
        if other is not entry:
            raise UserError(
                f"{manifest} lists {other.name} (line {other.line}) and {entry.name} (line {entry.line}), but both are"
                f" the file {entry.file}; take one off the list, or give each a file of its own"
            )
