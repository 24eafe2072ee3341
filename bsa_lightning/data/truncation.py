"""Audio files that end too early, which libsndfile reads as shorter ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import soundfile

_UNKNOWN_LENGTH = 0x7FFF0000
"""Bytes in a header from which on a program did not know the length when it began to write, as to a pipe."""
_TOLERATED = 1024
"""Bytes by which the size of a whole file, unlike that of its samples, is often written too large."""
_LARGEST_PAGE = 65_307
"""Bytes of a page of Ogg."""
_END_OF_STREAM = 4
_FIRST_FRAME = 2048
"""Bytes in which the first frame of an mp3 ends."""


def lacking(file: soundfile.SoundFile, path: Path) -> str:
    """What an opened file lacks by its own account; empty if it is whole, or does not say.

    Args:
        file: the file, opened.
        path: where it is.
    """
    if file.format == "OGG":
        return _lacking_in_ogg(path)
    pattern = r"^\s*(data|SSND|BODY|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
    for name, promised, there in re.findall(pattern, file.extra_info, flags=re.MULTILINE):
        tolerated = _TOLERATED if name.lower().startswith("riff") else 0
        if int(there) + tolerated < int(promised) < _UNKNOWN_LENGTH:
            return f"{there} bytes of {promised}"
    return ""


def lacking_frames(found: int, promised: int, rate: int, path: Path) -> str:
    """What a decoded file lacks of the frames that it promised, by a second or a hundredth; empty if it is whole.

    An mp3 whose beginning does not count its frames promises nothing: libsndfile guesses then.
    """
    if promised - found <= max(rate, promised // 100):
        return ""
    with path.open("rb") as file:
        start = file.read(10)
        # An ID3 tag says its length in four times seven bits.
        tag = sum(byte << shift for byte, shift in zip(start[6:], (21, 14, 7, 0), strict=False)) + 10
        file.seek(tag if start.startswith(b"ID3") else 0)
        first = file.read(_FIRST_FRAME)
        is_mp3 = start.startswith(b"ID3") or first[:1] == b"\xff"
    counts = any(mark in first for mark in (b"Xing", b"Info", b"VBRI"))
    return "" if is_mp3 and not counts else f"{found} samples of {promised}"


def _lacking_in_ogg(path: Path) -> str:
    """The last page of a whole file says that it is the last, and is there to its end."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2 * _LARGEST_PAGE))
        end = file.read()
    page = end[end.rfind(b"OggS\0") :]
    segments = page[27 : 27 + page[26]] if len(page) > 27 else b""
    whole = len(page) > 27 and len(segments) == page[26] and len(page) >= 27 + len(segments) + sum(segments)
    return "" if whole and page[5] & _END_OF_STREAM else "its last page is missing"
