"""Stores of prepared latents at a URL (s3://bucket/folder), whose files are fetched to a cache when they are needed.

A file appears in the cache only if its size and digest are those in the index. One process per machine fetches a file,
under a lock, and others that need it wait. The S3 client finds credentials and endpoint itself: in AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL or FSSPEC_S3_ENDPOINT_URL of the environment, or in the configuration files
of AWS or fsspec.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bsa_lightning.common.cache import user_cache
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write, make_folder, sha256_of_file
from bsa_lightning.data.index import INDEX
from bsa_lightning.data.store import Store

_BLOCK = 16 << 20  # bytes a request: some 0.1 s at 1 Gbit/s
_OPTIONS: dict[str, dict[str, Any]] = {
    # A server that never answers is given up after 2 attempts of botocore times 5 of s3fs.
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 15, "retries": {"total_max_attempts": 2}}}
}


class RemoteStore(Store):
    """A store at a URL that fsspec can read.

    Args:
        url: the URL of the folder that contains the index.
        cache: the folder for fetched files, which becomes as large as the store; ``None`` is ``bsa-lightning/latents``
            in the user's cache folder. Several stores can share it, since each has a subfolder named after the digest
            of its index.

    Raises:
        UserError: if the index cannot be read, such as without the server, the bucket, credentials or the S3 package.
    """

    def __init__(self, url: str, cache: Path | None = None) -> None:
        self.name = url.rstrip("/")
        self._index = self._read(INDEX)
        digest = hashlib.sha256(self._index).hexdigest()
        self.cache = (Path(cache) if cache is not None else user_cache("latents")) / digest[:16]

    def index(self) -> bytes:
        return self._index

    def check(self, name: str, *, num_bytes: int | None = None) -> None:
        """Does nothing, since a file is checked when it is fetched."""

    def path(self, name: str, *, sha256: str, num_bytes: int | None = None) -> Path:
        path = self.cache / name
        if not self.has(name, num_bytes=num_bytes):
            with self._lock(name):
                if not self.has(name, num_bytes=num_bytes):
                    self._fetch(name, sha256, num_bytes, lambda: False)
        return path

    def fetch_ahead(self, name: str, *, sha256: str, stop: Callable[[], bool], num_bytes: int | None = None) -> None:
        with suppress(Timeout, _NotNeededError):  # a process that holds the lock is fetching the same file
            if not self.has(name, num_bytes=num_bytes):
                with self._lock(name).acquire(blocking=False):
                    if not self.has(name, num_bytes=num_bytes):
                        self._fetch(name, sha256, num_bytes, stop)

    def verify(self, name: str, *, sha256: str) -> None:
        """Deletes a damaged file from the cache, so that it is fetched again."""
        path = self.cache / name
        if path.is_file() and sha256_of_file(path) != sha256:
            path.unlink()

    def has(self, name: str, *, num_bytes: int | None = None) -> bool:
        path = self.cache / name
        return path.is_file() and num_bytes in (None, path.stat().st_size)

    def _fetch(self, name: str, sha256: str, num_bytes: int | None, stop: Callable[[], bool]) -> None:
        for left_over in self.cache.glob(f".{name}.*"):  # left by killed processes, since this one has the lock
            left_over.unlink()
        digest, size = hashlib.sha256(), 0
        with atomic_write(self.cache / name, durable=True) as partial:
            with partial.open("wb") as file:
                for block in self._blocks(name, num_bytes):
                    if stop():
                        raise _NotNeededError
                    file.write(block)
                    digest.update(block)
                    size += len(block)
            if num_bytes not in (None, size):
                raise UserError(f"{self.name}/{name} has {size} bytes where the index says {num_bytes}; {_UPLOAD}")
            if digest.hexdigest() != sha256:
                raise UserError(f"{self.name}/{name} is damaged; {_UPLOAD}")

    def _blocks(self, name: str, num_bytes: int | None) -> Iterator[bytes]:
        if num_bytes is None:
            yield self._read(name)
            return
        with _client_errors(f"{self.name}/{name}"):
            files, path = _file_system(f"{self.name}/{name}")
            size = files.info(path)["size"]
        if size != num_bytes:
            raise UserError(f"{self.name}/{name} has {size} bytes where the index says {num_bytes}; {_UPLOAD}")
        for start in range(0, num_bytes, _BLOCK):
            with _client_errors(f"{self.name}/{name}"):
                block = files.cat_file(path, start=start, end=min(start + _BLOCK, num_bytes))
            yield block

    def _read(self, name: str) -> bytes:
        with _client_errors(f"{self.name}/{name}"):
            files, path = _file_system(f"{self.name}/{name}")
            content: bytes = files.cat_file(path)
        return content

    def _lock(self, name: str) -> FileLock:
        make_folder(self.cache)
        return FileLock(self.cache / f"{name}.lock")


class _NotNeededError(Exception):
    """The file that is being fetched is not needed any more."""


def _file_system(url: str) -> tuple[Any, str]:
    """The file system and the path of a URL; called for each request, since a client must not outlive a fork."""
    import fsspec
    from fsspec.config import conf

    protocol = url.partition(":")[0]
    options = {**_OPTIONS.get(protocol, {}), **conf.get(protocol, {})}
    files, path = fsspec.url_to_fs(url, **options)
    return files, path


@contextmanager
def _client_errors(url: str) -> Iterator[None]:
    """A context in which any error of the client becomes a ``UserError`` about ``url``."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{url} needs a package that is not installed ({error}); install bsa-lightning[s3]") from error
    except FileNotFoundError as error:
        raise UserError(f"{url} does not exist; name the address of a store that lightning prepare made") from error
    except Exception as error:
        if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
            raise UserError(
                f"access to {url} is denied ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another"
                " source of credentials of the S3 client, to credentials with access"
            ) from error
        raise UserError(
            f"{url} cannot be read ({type(error).__name__}: {error}); check the address, AWS_ENDPOINT_URL and whether"
            " the server answers"
        ) from error


_UPLOAD = "upload it anew"
