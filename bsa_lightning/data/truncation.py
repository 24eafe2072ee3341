"""Detection of truncated audio files, which libsndfile reads as shorter ones without an error."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from bsa_lightning.data.sound_source import Source, open_bytes

if TYPE_CHECKING:
    import soundfile

_UNKNOWN_LENGTH = 0x7FFF0000
"""The size from which on a header means that the length was unknown, as when a program writes to a pipe."""
_TOLERATED = 1024
"""The most bytes by which the file size in the header of a complete file is too large; programs differ."""
_LARGEST_PAGE = 65_307
"""The largest page of Ogg, in bytes."""
_END_OF_STREAM = 4
_FIRST_FRAME = 2048
"""The bytes after an ID3 tag that contain the first frame of an mp3."""


def missing_bytes(file: soundfile.SoundFile, path: Source) -> str:
    """A description of the bytes that a file lacks according to its header, or "" if it lacks none.

    Args:
        file: the opened file.
        path: the file, or its bytes.
    """
    if file.format == "OGG":
        return _lacking_in_ogg(path)
    pattern = r"^\s*(data|SSND|BODY|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
    for name, promised, there in re.findall(pattern, file.extra_info, flags=re.MULTILINE):
        tolerated = _TOLERATED if name.lower().startswith("riff") else 0
        if int(there) + tolerated < int(promised) < _UNKNOWN_LENGTH:
            return f"{there} bytes of {promised}"
    return ""


def missing_frames(found: int, promised: int, rate: int, path: Source) -> str:
    """A description of the samples that a decoded file lacks, or "" if it lacks at most a second or a hundredth.

    For an mp3 without a header that counts its frames, libsndfile guesses their number, so the result is "".

    Args:
        found: the number of decoded samples per channel.
        promised: the number of samples per channel according to libsndfile.
        rate: the sample rate in Hz.
        path: the file, or its bytes.
    """
    if promised - found <= max(rate, promised // 100):
        return ""
    with open_bytes(path) as file:
        start = file.read(10)
        # The length of an ID3 tag has four bytes of seven bits each.
        tag = sum(byte << shift for byte, shift in zip(start[6:], (21, 14, 7, 0), strict=False)) + 10
        file.seek(tag if start.startswith(b"ID3") else 0)
        first = file.read(_FIRST_FRAME)
        is_mp3 = start.startswith(b"ID3") or first[:1] == b"\xff"
    counts = any(mark in first for mark in (b"Xing", b"Info", b"VBRI"))
    return "" if is_mp3 and not counts else f"{found} samples of {promised}"


def _lacking_in_ogg(path: Source) -> str:
    """The description for Ogg: the last page of a complete file is complete and marked as the last."""
    with open_bytes(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2 * _LARGEST_PAGE))
        end = file.read()
    page = end[end.rfind(b"OggS\0") :]
    segments = page[27 : 27 + page[26]] if len(page) > 27 else b""
    whole = len(page) > 27 and len(segments) == page[26] and len(page) >= 27 + len(segments) + sum(segments)
    return "" if whole and page[5] & _END_OF_STREAM else "its last page is missing"
