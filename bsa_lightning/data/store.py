"""The interface of a store of prepared latents, whose files are in a folder or at a URL."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from bsa_lightning.common.errors import UserError


class Store(ABC):
    """Access to the files of a store by their names."""

    name: str
    """The folder or the URL of the store, as the user has given it."""

    @abstractmethod
    def index(self) -> bytes:
        """The content of the index file."""

    @abstractmethod
    def check(self, name: str, *, num_bytes: int | None = None) -> None:
        """Checks, without reading it, that a file of a local store exists and has ``num_bytes`` bytes, if given.

        Raises:
            UserError: if it does not.
        """

    @abstractmethod
    def has(self, name: str, *, num_bytes: int | None = None) -> bool:
        """Whether the file is on this machine and has ``num_bytes`` bytes, if given."""

    @abstractmethod
    def path(self, name: str, *, sha256: str, num_bytes: int | None = None) -> Path:
        """The path of the file on this machine, to which it is fetched first if the store is remote.

        Args:
            name: the name of the file.
            sha256: the digest that a fetched file must have.
            num_bytes: the size that the file must have, in bytes; ``None`` accepts any.

        Raises:
            UserError: if the file is missing, has another size, or cannot be fetched.
        """

    @abstractmethod
    def verify(self, name: str, *, sha256: str) -> None:
        """Compares a file that is on this machine with its digest.

        Raises:
            UserError: if it is damaged and cannot be fetched again.
        """

    @abstractmethod
    def fetch_ahead(self, name: str, *, sha256: str, stop: Callable[[], bool], num_bytes: int | None = None) -> None:
        """Fetches a file that will be needed, until ``stop`` returns True."""

    def read(self, name: str, *, sha256: str) -> bytes:
        """The content of a small file.

        Raises:
            UserError: if its digest is not ``sha256``.
        """
        path = self.path(name, sha256=sha256)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise damaged(path)
        return content


def damaged(path: Path) -> UserError:
    """The error for a file whose digest is not that in the index."""
    return UserError(f"{path} is damaged; delete it and run lightning prepare again, or fit where that made it")


def is_url(location: str | Path) -> bool:
    """Whether a location is a URL, such as s3://bucket/folder; ``Path`` removes the second slash of one."""
    return re.match(r"[A-Za-z][\w+.-]+:/", str(location)) is not None
