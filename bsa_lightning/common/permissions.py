"""Permissions of files that libraries wrote: those of the umask, so that colleagues may read what the umask says."""

from __future__ import annotations

import os
from pathlib import Path


def follow_umask(path: Path, *, probe: Path) -> None:
    """Gives a file, or a folder and all that it contains, the permissions with which the process makes new ones.

    Some libraries write files that only their owner may read, whatever the umask: safetensors gives its files the mode
    0600. The mode is read from a new file and a new folder, since ``os.umask`` cannot be read without changing it for
    all threads for a moment, and since a folder may have default permissions of its own.

    Args:
        path: the file or folder.
        probe: the name of a file and folder that does not exist, on the same file system; nothing is left there.
    """
    paths = [path, *(path.rglob("*") if path.is_dir() else ())]
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    of_file = probe.stat().st_mode & 0o777
    probe.unlink()
    probe.mkdir()
    of_folder = probe.stat().st_mode & 0o777
    probe.rmdir()
    for part in paths:
        wanted = of_folder if part.is_dir() else of_file
        if not part.is_symlink() and part.stat().st_mode & 0o777 != wanted:
            part.chmod(wanted | (part.stat().st_mode & ~0o777))
