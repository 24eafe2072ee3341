"""Where the bytes of an audio file are: in a file of its own, or in memory, read from a larger file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bsa_lightning.common.errors import UserError

if TYPE_CHECKING:
    import soundfile

REMEDY = "replace it or take it off the list"


@dataclass(frozen=True)
class SoundBytes:
    """The bytes of an audio file that is a part of a larger file, such as a member of a tar file.

    Args:
        name: the name of the sound for messages.
        content: the bytes of the audio file.
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


Source = Path | SoundBytes
"""A sound that can be opened: a file, or the bytes of one."""


def open_bytes(source: Source) -> BinaryIO:
    """Opens the bytes of a sound for reading."""
    return io.BytesIO(source.content) if isinstance(source, SoundBytes) else Path(source).open("rb")


def open_sound(source: Source) -> soundfile.SoundFile:
    """Opens a sound; a path must be that of a regular file, since opening a pipe or a device might never return.

    Raises:
        UserError: if it cannot be opened as audio.
    """
    import soundfile

    try:
        if isinstance(source, SoundBytes):
            return soundfile.SoundFile(open_bytes(source))
        if not Path(source).is_file():
            why = "it is a folder" if Path(source).is_dir() else "there is no such regular file"
            raise UserError(f"{source} cannot be read as audio ({why}); {REMEDY}")
        return soundfile.SoundFile(source)
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: a raw file, without a sample rate
        reason = str(error)
        if isinstance(source, SoundBytes):  # libsndfile's message names the buffer, as an object of Python
            reason = getattr(error, "error_string", reason)
        raise UserError(f"{source} cannot be read as audio ({reason}); {REMEDY}") from error
