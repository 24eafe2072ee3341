"""Folders of audio files, each with its captions in a text file beside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.lists import plain_text, read_lines
from bsa_lightning.data.audio import Channels, suffixes
from bsa_lightning.data.audio_folder import walk
from bsa_lightning.data.recordings import Recordings

_TEXT = ".txt"


class CaptionedFolder(Recordings):
    """The audio files in a folder and below it, each with a text file of the same name beside it.

    ``dogs/001.wav`` has its captions in ``dogs/001.txt``, one per line. A clip is known by its path. Files and folders
    whose names begin with a dot are ignored. A sound without a text and a text without a sound count as missing.

    Args:
        folder: the folder.
        max_missing: the largest share of the clips, from 0 to 1, that may be missing or unreadable.
        channels: the channels of a file that are used: "first" for the first ones, or "mean" for the mean of all.

    Raises:
        UserError: if there is no such folder, a text is empty or malformed, too many clips are missing, or two sounds
            have one text.
    """

    def __init__(self, folder: Path, max_missing: float = 0.05, channels: Channels = "first") -> None:
        remedy = "give each sound a text file of its name"
        super().__init__(str(folder), max_missing=max_missing, channels=channels, remedy=remedy)
        self.folder = Path(folder)
        if not self.folder.is_dir():
            why = "which is not a folder" if self.folder.exists() else "but no such folder exists"
            raise UserError(f'folder is "{folder}", {why}; name a folder of audio files with text files beside them')
        sounds: dict[str, str] = {}
        texts: dict[str, str] = {}
        ids: dict[str, str] = {}
        known = suffixes()
        for parts, path in walk(self.folder):
            name = "/".join(parts)
            suffix = PurePosixPath(name).suffix
            stem = name.removesuffix(suffix)
            if suffix.lower() == _TEXT:
                texts[stem] = path
            elif suffix.lower() in known:
                if stem in sounds:
                    raise UserError(
                        f"{self.folder} has {sounds[stem]} and {path}, which would have the same text, {stem}{_TEXT};"
                        " rename one of them"
                    )
                plain_text(name, where=str(self.folder), what="file name")
                sounds[stem], ids[stem] = path, name
        stems = [stem for stem in sounds if stem in texts]
        self._files = [sounds[stem] for stem in stems]
        missing = [f"{stem}{_TEXT}" for stem in sounds if stem not in texts]
        missing += [f"{stem}.*" for stem in texts if stem not in sounds]
        self._hold([(ids[stem], _captions(self.folder / texts[stem])) for stem in stems], missing=missing)

    def source(self, i: int) -> Path:
        return self.folder / self._files[i]


def _captions(path: Path) -> list[str]:
    return [plain_text(text, where=f"{path} line {line}", what="caption") for line, text in read_lines(path)]
