"""Stores of prepared latents in folders, and the choice between a folder and a URL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.data.index import INDEX
from bsa_lightning.data.remote_store import RemoteStore
from bsa_lightning.data.store import Store, damaged, is_url


class LocalStore(Store):
    """A store in a folder that ``lightning prepare`` wrote.

    Args:
        folder: the folder.

    Raises:
        UserError: if the folder does not contain an index.
    """

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.folder = folder
        if not (folder / INDEX).is_file():
            raise UserError(f"{folder} holds no prepared latents (no {INDEX}); make them with lightning prepare")

    def index(self) -> bytes:
        try:
            return (self.folder / INDEX).read_bytes()
        except OSError as error:
            raise UserError(f"{self.folder / INDEX} cannot be read ({error.strerror}); make it readable") from error

    def check(self, name: str, *, num_bytes: int | None = None) -> None:
        path = self.folder / name
        if path.is_symlink() and path.resolve().parent != self.folder.resolve():
            raise UserError(f"{path} is a link out of its folder; put the file itself there")
        if not path.is_file():
            raise UserError(f"{path} is missing; run lightning prepare again")
        if num_bytes not in (None, size := path.stat().st_size):
            raise UserError(f"{path} has {size} bytes where the index says {num_bytes}; run lightning prepare again")

    def has(self, name: str, *, num_bytes: int | None = None) -> bool:
        self.check(name, num_bytes=num_bytes)
        return True

    def path(self, name: str, *, sha256: str, num_bytes: int | None = None) -> Path:
        del sha256  # compared once per start, in `verify`
        self.check(name, num_bytes=num_bytes)
        return self.folder / name

    def fetch_ahead(self, name: str, *, sha256: str, stop: Callable[[], bool], num_bytes: int | None = None) -> None:
        """Does nothing, since all files are in the folder."""

    def verify(self, name: str, *, sha256: str) -> None:
        if sha256_of_file(path := self.path(name, sha256=sha256)) != sha256:
            raise damaged(path)


def open_store(location: str | Path, cache: Path | None = None) -> Store:
    """Opens a store.

    Args:
        location: a folder, or a URL (s3://bucket/folder).
        cache: the folder for files that are fetched from a URL, see :class:`RemoteStore`.

    Raises:
        UserError: if the folder is not a store, or the URL cannot be read.
    """
    if not is_url(location):
        return LocalStore(Path(location))
    return RemoteStore(str(location), cache)
