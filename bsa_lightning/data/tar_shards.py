"""Tar files in the layout of WebDataset, read in place: nothing is extracted."""

from __future__ import annotations

import glob
import logging
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.lists import parse_object, plain_text
from bsa_lightning.data.audio import Channels, suffixes
from bsa_lightning.data.audio_folder import walk
from bsa_lightning.data.recordings import Columns, Recordings
from bsa_lightning.data.sound_source import SoundBytes
from bsa_lightning.data.store import is_url

_log = logging.getLogger(__name__)


class _Member(NamedTuple):
    """A regular file in a tar file: its name, and where its content is, in bytes."""

    name: str
    offset: int
    size: int


class WebDataset(Recordings):
    """Tar files in which the members of a clip have the same name but for what follows the first dot.

    ``000017.flac`` beside ``000017.txt`` is a clip. A clip is known by the path of its tar file and its name there, so
    that names may repeat in different tar files. Members that are not regular files, such as links, are ignored.

    Args:
        shards: a tar file, a folder whose ``.tar`` files are read, with those in folders below it, or a pattern of
            paths such as ``clips/train-*.tar`` or ``clips/train-{000..099}.tar``. Tar files must not be compressed,
            since they are read at random places.
        caption_member: the member with the captions: ``txt`` has one per line, and ``json.caption`` is the entry
            ``caption`` of a JSON object, a caption or a list of captions.
        max_missing: the largest share of the clips, from 0 to 1, that may be unreadable or without a sound or caption.
        channels: the channels of a file that are used: "first" for the first ones, or "mean" for the mean of all.

    Raises:
        UserError: if there is no such tar file, one is damaged or compressed, a clip has no caption, or two members of
            a tar file have the same name.
    """

    def __init__(
        self, shards: str, caption_member: str = "txt", max_missing: float = 0.05, channels: Channels = "first"
    ) -> None:
        remedy = f"give each clip a sound and a {caption_member.partition('.')[0]} with one name up to the first dot"
        super().__init__(str(shards), max_missing=max_missing, channels=channels, remedy=remedy)
        self.shards, self.caption_member = str(shards), caption_member
        kind, _, entry = caption_member.partition(".")
        kind = kind.lower()
        if not kind or (kind == "json") != bool(entry):
            raise UserError(
                f'caption_member is "{caption_member}", but must be a suffix such as txt, or json.caption for the entry'
                " caption of a JSON member"
            )
        paths = _shards(str(shards))
        folder = os.path.commonpath([path.parent for path in paths])
        self._places: list[tuple[Path, _Member]] = []
        items: list[tuple[str, list[str]]] = []
        missing: list[str] = []
        for path in paths:
            with path.open("rb") as file:
                for key, members in _grouped(path, file).items():
                    name = plain_text(f"{os.path.relpath(path, folder)}/{key}", where=str(path), what="name")
                    sound, text = _sound(path, key, members), members.get(kind)
                    if sound is not None and text is not None:
                        items.append((name, _captions(file, text, entry, where=f"{path} member {text.name}")))
                        self._places.append((path, sound))
                    else:
                        missing += _missing(name, members, kind, has_sound=sound is not None)
        self._hold(items, missing=missing)

    def files(self) -> Iterable[Path]:
        return dict.fromkeys(path for path, _ in self._places)

    def source(self, i: int) -> SoundBytes:
        path, member = self._places[i]
        with path.open("rb") as file:
            return SoundBytes(f"{path} member {member.name}", _read(file, member))


def _shards(pattern: str) -> list[Path]:
    """The tar files that the setting ``shards`` names, sorted."""
    if is_url(pattern):
        raise UserError(f"shards is {pattern}, but must be on this machine; fetch the tar files first")
    if Path(pattern).is_dir():
        found = [str(Path(pattern) / path) for parts, path in walk(Path(pattern)) if parts[-1].endswith(".tar")]
    else:
        patterns = _expanded(pattern)
        found = [path for one in patterns for path in ([one] if Path(one).exists() else sorted(glob.glob(one)))]  # noqa: PTH207 - Path.glob takes no absolute pattern
        if (
            absent := next((one for one in patterns if not glob.has_magic(one) and one not in found), None)
        ) is not None:
            raise UserError(f"shards is {pattern}, but {absent} does not exist; name tar files that do")
    if not found:
        raise UserError(
            f"shards is {pattern}, but there is no tar file; name a tar file, or a folder or pattern of some"
        )
    paths = [Path(path) for path in dict.fromkeys(found)]
    if other := next((path for path in paths if not path.is_file()), None):
        raise UserError(f"shards is {pattern}, but {other} is not a regular file; name tar files alone")
    return paths


def _expanded(pattern: str) -> list[str]:
    """A pattern with ranges such as ``{000..012}`` as the list of all that it stands for."""
    range_ = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if range_ is None or Path(pattern).exists():
        return [pattern]
    first, last = int(range_[1]), int(range_[2])
    if last - first >= _MOST_SHARDS:
        raise UserError(f"shards is {pattern}, which stands for more than {_MOST_SHARDS} tar files; correct the range")
    before, after = pattern[: range_.start()], pattern[range_.end() :]
    return [
        f"{before}{number:0{len(range_[1])}d}{rest}" for number in range(first, last + 1) for rest in _expanded(after)
    ]


def _grouped(path: Path, file: BinaryIO) -> dict[str, dict[str, _Member]]:
    """The members of each clip of a tar file, by the clip's name and what follows the first dot in lower case."""
    found: dict[str, dict[str, _Member]] = {}
    for member in _members(path, file):
        name = _NAME.fullmatch(member.name)
        if name is None:  # hidden, or without a dot
            continue
        members = found.setdefault(name["key"].removeprefix("./"), {})
        other = members.setdefault(name["ending"].lower(), member)
        if other is not member:
            raise UserError(
                f"{path} has two members {other.name} and {member.name} (at bytes {other.offset} and {member.offset});"
                " give each a name of its own"
            )
    return found


def _members(path: Path, file: BinaryIO) -> Iterator[_Member]:
    """Yields the regular files of a tar file in order, without reading their content."""
    if file.read(6).startswith(_COMPRESSED):
        raise UserError(f"{path} is compressed, but is read at random places; decompress it, for example with gunzip")
    file.seek(0)
    num_others = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isreg() and not member.issparse():
                    yield _Member(member.name, member.offset_data, member.size)
                num_others += not (member.isreg() or member.isdir()) or member.issparse()
            end = tar.offset
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a tar file ({error}); fetch it again or replace it") from error
    if num_others:
        _log.warning("%s: %d members are links or other special files, and are ignored", path, num_others)
    file.seek(end)  # past the first of two blocks of zeros, or before what is no header
    rest = file.read(_BLOCK)
    if rest.strip(b"\0"):
        raise UserError(f"{path} is damaged at byte {end}; fetch it again or replace it")
    if not rest:
        _log.warning("%s does not end as a tar file does; it may be cut short", path)


def _sound(path: Path, key: str, members: Mapping[str, _Member]) -> _Member | None:
    found = [member for ending, member in members.items() if f".{ending}" in suffixes()]
    if len(found) > 1:
        raise UserError(f"{path} has two sounds of the clip {key} ({found[0].name}, {found[1].name}); remove one")
    return found[0] if found else None


def _missing(name: str, members: Mapping[str, _Member], kind: str, *, has_sound: bool) -> list[str]:
    """What a clip lacks; nothing for members that are neither sound nor captions."""
    if has_sound:
        return [f"{name}.{kind}"]
    if kind in members:
        return [f"{name}.*"]
    return [f"{name}.{ending}" for ending in members if f".{ending.rpartition('.')[2]}" in suffixes()]


def _captions(file: BinaryIO, member: _Member, entry: str, *, where: str) -> list[str]:
    if member.size > _LONGEST_TEXT:
        raise UserError(f"{where} has {member.size} bytes, but captions have at most {_LONGEST_TEXT}; shorten it")
    content = _read(file, member)
    try:
        if entry:
            return Columns(captions=entry).captions_of(parse_object(content), where=where)
        lines = [line for line in re.split(r"\r\n?|\n", content.decode("utf-8-sig")) if line.strip()]
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not text in UTF-8 ({error.reason}); save it as UTF-8") from error
    except ValueError as error:
        raise UserError(f"{where} is not a JSON object ({error}); correct it") from error
    return [plain_text(line, where=where, what="caption") for line in lines or [""]]


def _read(file: BinaryIO, member: _Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


_NAME = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<ending>[^/]+)", flags=re.DOTALL)
"""A member's name as WebDataset reads it: the key ends at the first dot of the last part."""
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_BLOCK = 512
_LONGEST_TEXT = 1 << 20
"""The largest member with captions, in bytes."""
_MOST_SHARDS = 1_000_000
