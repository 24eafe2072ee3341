"""Files that appear under their final name only when whole."""

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

if TYPE_CHECKING:
    from torch import Tensor

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)


_PARTIAL, _OLD = "partial", "old"
_ABANDONED = 3600.0
"""Seconds after which a partial file of a process on another machine is taken for dead."""
_LONGEST_NAME = 255
"""Bytes of a file's name, on every common file system."""
_looked_after: set[Path] = set()
"""Folders that this process has cleared of dead partial files."""


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields another name beside ``path`` to write a file or folder to; renames it at the end, removes it on an error.

    A file replaces a file and a folder a folder, never one the other. What a killed process left beside ``path`` is
    cleared away.

    Args:
        path: the final name.
        durable: whether it is on the disk at the end, so that it outlives the machine's power as well as the process.

    Raises:
        UserError: if the disk is full, the folder cannot be written, or ``path`` is a folder where a file is written or
            the other way round.
    """
    partial = _beside(path, _PARTIAL)
    made = [part for part in path.parents if not part.exists()]
    make_folder(path.parent)
    _clear_dead(path.parent)
    try:
        yield partial
        _refuse_other_kind(path, is_folder=partial.is_dir())
        if durable:
            _to_disk(partial)
        if path.is_dir():
            old = path.replace(_beside(path, _OLD))
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
                with suppress(OSError):  # something else has come into it
                    part.rmdir()


def refuse_folder(path: Path, *, setting: str) -> None:
    """Refuses to write a file where a folder is, before the work that the file is to hold.

    Raises:
        UserError: naming the ``setting`` that gave the path.
    """
    if path.is_dir():
        raise UserError(f"{setting} is {path}, which is a folder; name a file")


def refuse_file(path: Path, *, setting: str) -> None:
    """Refuses to write into a folder where something else is: a file, or a link that leads nowhere.

    Raises:
        UserError: naming the ``setting`` that gave the path.
    """
    for part in (path, *path.parents):
        if part.is_symlink() and not part.exists():
            raise UserError(f"{setting} is {path}, but {part} is a link that leads nowhere; name another folder")
        if part.exists():
            if not part.is_dir():
                raise UserError(f"{setting} is {path}, but {part} is not a folder; name another folder")
            return


def refuse_existing(path: Path, *, setting: str) -> None:
    """Refuses to write a new folder where something is already or nothing can be, before the work it is to hold.

    Raises:
        UserError: naming the ``setting`` that gave the path.
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists already; name another folder, or delete it")
    refuse_file(path, setting=setting)
    there = next(parent for parent in path.absolute().parents if parent.is_dir())
    probe = _beside(there / path.name, _PARTIAL)
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        text = disk_trouble(error, there) or f"{there} cannot be written ({error.strerror}); name another folder"
        raise UserError(text) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file, whole or not at all.

    safetensors' own ``save_file`` would leave a temporary file of any name in the folder if it were killed.
    """
    from safetensors.torch import save

    with whole(path) as partial:
        partial.write_bytes(save(dict(tensors)))


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, where there is none.

    Raises:
        UserError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = disk_trouble(error, path.parent) or f"{path} cannot be made ({error.strerror}); name another folder"
        raise UserError(text) from error


def remove(path: Path) -> None:
    """Removes a file, or a folder with all in it: at once, as far as its name goes."""
    if path.is_dir():
        shutil.rmtree(path.replace(_beside(path, _OLD)))
    else:
        path.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Removes what processes that were killed had begun to write anywhere below ``folder``.

    For a folder whose lock this process holds: other machines' partial files are taken for dead, too.
    """
    for path in filter(is_partial, sorted(folder.rglob(".*-*"))):
        if not _is_alive(path):
            _delete(path)


def is_partial(path: Path) -> bool:
    """Whether it has a name that a file or folder has only while :func:`whole` writes it, or :func:`remove` removes."""
    return _parts(path) is not None


def _clear_dead(folder: Path) -> None:
    """Removes the partial files of dead processes in a folder that no lock guards, the first time it is written."""
    if folder in _looked_after:
        return
    _looked_after.add(folder)
    for path in folder.glob(".*-*"):
        if (parts := _parts(path)) is None or _is_alive(path):
            continue
        with suppress(OSError):  # another process clears it, too
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


def _beside(path: Path, kind: str) -> Path:
    """A name that no other process takes, on whatever machine: folders are shared between them."""
    ending = f".{kind}-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    room = _LONGEST_NAME - len(ending) - 1
    name = os.fsdecode(os.fsencode(path.name)[:room])
    return path.with_name(f".{name}{ending}")


def _parts(path: Path) -> re.Match[str] | None:
    """Machine and process of a partial file's name, as groups; None for any other name."""
    ending = r"(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}"
    return re.fullmatch(rf"\..+\.({_PARTIAL}|{_OLD})-{ending}", path.name, flags=re.DOTALL)


def _is_alive(path: Path) -> bool:
    """Whether the process that writes a partial file runs, as far as this machine can tell."""
    parts = _parts(path)
    if parts is None or parts["machine"] != _machine():
        return False
    try:
        os.kill(int(parts["process"]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's process; no number of one
        pass
    return True


@functools.cache
def _machine() -> str:
    """Eight digits that tell the process numbers of one machine, or container, from those of another."""
    try:
        numbering = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # no Linux
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
    """The sentence for a disk that is full or a folder that cannot be written; empty for any other error.

    Rust's libraries (safetensors) tell the number of an operating system's error only in their text, and a writer that
    is closed after an error may raise another one on top of it.
    """
    while not isinstance(error, OSError) and (below := error.__cause__ or error.__context__):
        error = below
    told = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
    if number in _FULL:
        return f"the disk of {folder} is full; free some space and run the same command again"
    if number in _FORBIDDEN:
        return f"{folder} cannot be written ({os.strerror(number)}); name a folder that can"
    return ""


def write_json(path: Path, content: object) -> None:
    """Writes ``content``, indented, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: if there is no such file, or it holds something else.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")  # a pipe might never end
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); put a whole one there") from error
    return content


def sha256_of_file(path: Path) -> str:
    """Hex digest of a file's bytes.

    Raises:
        OSError: if it is no regular file: a pipe might never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
