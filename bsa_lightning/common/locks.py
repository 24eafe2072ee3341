"""A folder that one process writes at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import disk_trouble, make_folder

LOCK = ".bsa-lightning.lock"
"""Name of the file in a folder that the process which writes the folder holds."""


@contextmanager
def locked(folder: Path, *, wait: float = -1, busy: str) -> Iterator[None]:
    """Holds the one lock of a folder, a hidden file in it; makes the folder where there is none.

    The lock goes with the process, however that ends. Afterwards the file is gone, and a folder that was made for it
    too if nothing else came into it.

    Args:
        folder: to be written by one process alone.
        wait: seconds to wait for another process; negative waits without end.
        busy: the sentence for a folder that another process still holds then.

    Raises:
        UserError: if the folder stays locked or cannot be written.
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
            (folder / LOCK).unlink()  # while it is held: whoever waits sees that its file has no name any more
        lock.release()
        with suppress(OSError):  # the first that is not empty ends it
            for part in made:
                part.rmdir()
