"""A lock on a folder that only one process may write to at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import disk_trouble, make_folder

LOCK = ".bsa-lightning.lock"
"""The name of the lock file in a folder."""


@contextmanager
def locked(folder: Path, *, wait: float = -1, busy: str) -> Iterator[None]:
    """A context in which this process holds the lock of a folder, a hidden file in it.

    The folder is made unless it exists. The system releases the lock if the process dies. At the end the lock file is
    removed, and so is a folder that was made for it and is still empty.

    Args:
        folder: the folder that only this process is to write to.
        wait: the time to wait for another process, in seconds; a negative number waits without limit.
        busy: the message of the error if another process still holds the lock after that.

    Raises:
        UserError: if the folder is still locked after ``wait`` seconds, or cannot be written to.
    """
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    make_folder(folder)
    lock = FileLock(folder / LOCK)
    try:
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


def is_locked(folder: Path) -> bool:
    """Returns whether a process holds the lock of a folder, without waiting for it.

    Args:
        folder: the folder, which exists.
    """
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
