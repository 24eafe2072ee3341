"""A lock on a folder that only one process may write to at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import disk_trouble, make_folder

_log = logging.getLogger(__name__)

LOCK = ".bsa-lightning.lock"
"""The name of the lock file in a folder."""


@contextmanager
def locked(folder: Path, *, wait: float = -1, busy: str, waiting: str = "") -> Iterator[None]:
    """A context in which this process holds the lock of a folder, a hidden file in it.

    The folder is made unless it exists. The system releases the lock if the process dies. At the end the lock file is
    removed, and so is a folder that was made for it and is still empty.

    Args:
        folder: the folder that only this process is to write to.
        wait: the time to wait for another process, in seconds; a negative number waits without limit.
        busy: the message of the error if another process still holds the lock after that.
        waiting: the line to log before waiting for another process; empty waits in silence.

    Raises:
        UserError: if the folder is still locked after ``wait`` seconds, or cannot be written to.
    """
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    make_folder(folder)
    lock = FileLock(folder / LOCK)
    try:
        if waiting and not _is_free(lock):
            _log.warning("%s", waiting)
        try:
            lock.acquire(timeout=wait)
        except FileNotFoundError:  # whoever held the lock has made the folder, and removed it since it stayed empty
            make_folder(folder)
            lock.acquire(timeout=wait)
    except Timeout:
        raise UserError(busy) from None
    except OSError as error:
        raise UserError(disk_trouble(error, folder) or f"{folder} cannot be locked ({error.strerror})") from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()  # still locked: a process that waits notices that the file has lost its name
        lock.release()
        with suppress(OSError):  # until the first folder that is not empty
            for part in made:
                part.rmdir()


def _is_free(lock: FileLock) -> bool:
    """Whether no other process held the lock a moment ago."""
    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False


def is_locked(folder: Path) -> bool:
    """Returns whether a process holds the lock of a folder, without waiting for it.

    Args:
        folder: the folder.
    """
    with suppress(OSError):
        return (folder / LOCK).exists() and not _is_free(FileLock(folder / LOCK))
    return False
