"""Where the files of prepared latents lie: a folder, or an address whose files come to a folder when they are read."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from bsa_lightning.common.errors import UserError


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


def damaged(path: Path) -> UserError:
    """For a file whose bytes are not those of the index."""
    return UserError(f"{path} is damaged; delete it and run lightning prepare again, or fit where that made it")


def is_url(location: str | Path) -> bool:
    """Whether a store is named by an address, as s3://bucket/folder is; a ``Path`` of one has lost a slash."""
    return re.match(r"[A-Za-z][\w+.-]+:/", str(location)) is not None
