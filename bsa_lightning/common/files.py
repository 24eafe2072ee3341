"""Files and folders that are written atomically, and errors of the disk as sentences for the user."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.permissions import follow_umask

if TYPE_CHECKING:
    from torch import Tensor

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)
_PARTIAL, _OLD = "partial", "old"
_ABANDONED = 3600.0
"""Seconds after which the process that writes a partial file on another machine is taken to be dead."""
_LONGEST_NAME = 255
"""The longest name of a file on common file systems, in bytes."""
_cleared: set[Path] = set()
"""Folders from which this process has removed the partial files of dead processes."""


@contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A context in which a file or folder is written atomically: it appears as ``path`` when it is complete, or never.

    The context yields a temporary name beside ``path`` to write to, renames it to ``path`` at the end, and removes it
    if an exception is raised. A file replaces only a file, and a folder only a folder. Temporary files that a killed
    process left beside ``path`` are removed. Permissions follow the umask, whatever library wrote a file.

    Args:
        path: the final name.
        durable: whether to flush the data to the disk before the end, so that it survives a power failure too.

    Raises:
        UserError: if the disk is full, the folder cannot be written to, or ``path`` is an existing folder and a file
            was written, or the other way round.
    """
    partial = _temporary_name(path, _PARTIAL)
    made = [part for part in path.parents if not part.exists()]
    make_folder(path.parent)
    _clear_dead(path.parent)
    try:
        yield partial
        _refuse_other_kind(path, is_folder=partial.is_dir())
        follow_umask(partial, probe=_temporary_name(path, _PARTIAL))
        if durable:
            _to_disk(partial)
        if path.is_dir():
            old = path.replace(_temporary_name(path, _OLD))
            partial.replace(path)
            shutil.rmtree(old)
        else:
            partial.replace(path)
        if durable:
            _to_disk(path.parent, contents=False)
    except Exception as error:
        if text := disk_trouble(error, path.parent):
            raise UserError(text) from error
        raise
    finally:
        _delete(partial)
        if not path.exists():
            for part in made:
                with suppress(OSError):  # it is not empty any more
                    part.rmdir()


def refuse_folder(path: Path, *, setting: str) -> None:
    """Checks that no folder is at ``path``, where a file will be written after long work.

    Raises:
        UserError: if a folder is there; the message names the ``setting`` that the path came from.
    """
    if path.is_dir():
        raise UserError(f"{setting} is {path}, which is a folder; name a file")


def refuse_file(path: Path, *, setting: str) -> None:
    """Checks that ``path`` is a folder or can become one: that it is not a file or a broken link, nor below one.

    Raises:
        UserError: if it is; the message names the ``setting`` that the path came from.
    """
    for part in (path, *path.parents):
        if part.is_symlink() and not part.exists():
            raise UserError(f"{setting} is {path}, but {part} is a broken link; name another folder")
        if part.exists():
            if not part.is_dir():
                raise UserError(f"{setting} is {path}, but {part} is not a folder; name another folder")
            return


def refuse_existing(path: Path, *, setting: str) -> None:
    """Checks that nothing is at ``path`` yet and that a folder can be made there, before long work.

    Raises:
        UserError: if something is there or nothing can be written; the message names the ``setting`` or the path.
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists already; name another folder, or delete it")
    refuse_file(path, setting=setting)
    there = next(parent for parent in path.absolute().parents if parent.is_dir())
    probe = _temporary_name(there / path.name, _PARTIAL)
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        text = disk_trouble(error, there) or f"{there} cannot be written ({error.strerror}); name another folder"
        raise UserError(text) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file atomically.

    A killed ``save_file`` of safetensors would leave a temporary file with an arbitrary name in the folder.
    """
    from safetensors.torch import save

    with atomic_write(path) as partial:
        partial.write_bytes(save(dict(tensors)))


def make_folder(path: Path) -> None:
    """Makes a folder and its parents unless they exist.

    Raises:
        UserError: if the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = disk_trouble(error, path.parent) or f"{path} cannot be made ({error.strerror}); name another folder"
        raise UserError(text) from error


def remove(path: Path) -> None:
    """Removes a file, or a folder with its content; the name of the folder is free at once, in one step."""
    if path.is_dir():
        shutil.rmtree(path.replace(_temporary_name(path, _OLD)))
    else:
        path.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Removes the partial files of killed processes anywhere below ``folder``.

    This process must hold the lock of the folder, since partial files of other machines are removed in any case.
    """
    for path in filter(is_partial, sorted(folder.rglob(".*-*"))):
        if not _is_alive(path):
            _delete(path)


def is_partial(path: Path) -> bool:
    """Whether a name is that of a temporary file or folder of :func:`atomic_write` or :func:`remove`."""
    return _parts(path) is not None


def _clear_dead(folder: Path) -> None:
    """Removes the partial files of dead processes in a folder without a lock, when it is first written to."""
    if folder in _cleared:
        return
    _cleared.add(folder)
    for path in folder.glob(".*-*"):
        if (parts := _parts(path)) is None or _is_alive(path):
            continue
        with suppress(OSError):  # another process may remove it at the same time
            if parts["machine"] == _machine() or time.time() - path.lstat().st_mtime > _ABANDONED:
                _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _refuse_other_kind(path: Path, *, is_folder: bool) -> None:
    if path.is_dir() and not is_folder:
        raise UserError(f"{path} is a folder, which a file cannot replace; name another place")
    if path.exists() and not path.is_dir() and is_folder:
        raise UserError(f"{path} is a file, which a folder cannot replace; name another place")


def _temporary_name(path: Path, kind: str) -> Path:
    """A hidden temporary name beside ``path`` that no process of any machine sharing the folder uses."""
    ending = f".{kind}-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    room = _LONGEST_NAME - len(ending) - 1
    name = os.fsdecode(os.fsencode(path.name)[:room])
    return path.with_name(f".{name}{ending}")


def _parts(path: Path) -> re.Match[str] | None:
    """The machine and process in the name of a partial file, as groups, or ``None`` for any other name."""
    ending = r"(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}"
    return re.fullmatch(rf"\..+\.({_PARTIAL}|{_OLD})-{ending}", path.name, flags=re.DOTALL)


def _is_alive(path: Path) -> bool:
    """Whether the process that writes a partial file is running; False for processes of other machines."""
    parts = _parts(path)
    if parts is None or parts["machine"] != _machine():
        return False
    try:
        os.kill(int(parts["process"]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's process; a number too large for a process
        pass
    return True


@functools.cache
def _machine() -> str:
    """Eight hexadecimal digits that identify the machine or container, and so the meaning of a process number."""
    try:
        numbering = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not on Linux
        numbering = ""
    return hashlib.sha256(f"{socket.gethostname()} {numbering}".encode()).hexdigest()[:8]


def _to_disk(path: Path, *, contents: bool = True) -> None:
    for part in [*(path.rglob("*") if contents else ()), path]:
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def disk_trouble(error: BaseException, folder: Path) -> str:
    """The sentence for the user if ``error`` is about a full disk or a folder without write permission, else "".

    Libraries in Rust (safetensors) give the number of the system's error only in the text of theirs, and a file that is
    closed after an error may raise a second one.
    """
    while not isinstance(error, OSError) and (below := error.__cause__ or error.__context__):
        error = below
    match = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(match[1]) if match else None
    if number in _FULL:
        return f"the disk of {folder} is full; free some space and run the same command again"
    if number in _FORBIDDEN:
        return f"{folder} cannot be written ({os.strerror(number)}); name a folder that can"
    return ""


def write_json(path: Path, content: object) -> None:
    """Writes ``content`` as indented JSON, atomically."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: if the file does not exist, cannot be read, or does not contain a JSON object.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")  # reading a pipe might never end
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); replace it with an undamaged one") from error
    return content


def sha256_of_file(path: Path) -> str:
    """The hexadecimal SHA-256 digest of the content of a file.

    Raises:
        OSError: if it cannot be read or is not a regular file; reading a pipe might never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
