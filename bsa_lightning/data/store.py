"""Where the files of prepared latents lie: a folder, or an address whose files come to a folder when they are read."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from bsa_lightning.data.index import INDEX
from bsa_lightning.errors import UserError
from bsa_lightning.files import sha256_of_file


class Store(ABC):
    """The files of one store, by name."""

    name: str
    """What the user calls it."""

    @abstractmethod
    def index(self) -> bytes:
        """The content of the index."""

    @abstractmethod
    def check(self, name: str, *, num_bytes: int | None = None) -> None:
        """Refuses a file that is on this machine and has another size than ``num_bytes``, without reading it."""

    @abstractmethod
    def has(self, name: str, *, num_bytes: int | None = None) -> bool:
        """Whether the file is on this machine, in that size."""

    @abstractmethod
    def path(self, name: str, *, sha256: str, num_bytes: int | None = None) -> Path:
        """Where the file lies on this machine; fetches it first if it lies elsewhere."""

    @abstractmethod
    def verify(self, name: str, *, sha256: str) -> None:
        """Reads a file that is on this machine against its digest.

        Raises:
            UserError: if it is damaged and cannot be had again.
        """

    @abstractmethod
    def fetch_ahead(self, name: str, *, sha256: str, stop: Callable[[], bool], num_bytes: int | None = None) -> None:
        """Fetches a file that will be asked for, unless ``stop`` says to leave it."""

    def read(self, name: str, *, sha256: str) -> bytes:
        """The content of a small file, against its digest."""
        path = self.path(name, sha256=sha256)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise damaged(path)
        return content


class Folder(Store):
    """A folder that ``lightning prepare`` wrote.

    Args:
        folder: the folder.

    Raises:
        UserError: if there is no index.
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
        del sha256  # read against once a start, by `verify`
        self.check(name, num_bytes=num_bytes)
        return self.folder / name

    def fetch_ahead(self, name: str, *, sha256: str, stop: Callable[[], bool], num_bytes: int | None = None) -> None:
        """Nothing: a folder has all of its own."""

    def verify(self, name: str, *, sha256: str) -> None:
        if sha256_of_file(path := self.path(name, sha256=sha256)) != sha256:
            raise damaged(path)


def damaged(path: Path) -> UserError:
    """For a file whose bytes are not those of the index."""
    return UserError(f"{path} is damaged; delete it and run lightning prepare again, or fit where that made it")


def is_url(location: str | Path) -> bool:
    """Whether a store is named by an address, as s3://bucket/folder is; a ``Path`` of one has lost a slash."""
    return re.match(r"[A-Za-z][\w+.-]+:/", str(location)) is not None


def open_store(location: str | Path, cache: Path | None = None) -> Store:
    """The store at a folder or an address; ``cache`` keeps what is fetched from an address.

    Raises:
        UserError: if there is none, or an address cannot be read.
    """
    if not is_url(location):
        return Folder(Path(location))
    from bsa_lightning.data.remote import Remote

    return Remote(str(location), cache)
