"""Files of known content from the web: fetched once, resumed where they were cut off, checked by their SHA-256."""

from __future__ import annotations

import http.client
import logging
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import disk_trouble, sha256_of_file
from bsa_lightning.common.locks import locked
from bsa_lightning.common.settings_alone import refuse_to_load

_log = logging.getLogger(__name__)

_SECONDS = 30.0
"""The time to wait for an answer, or for more of it, in seconds."""
_PAUSE = 1.0
"""The time before a transfer that was cut off goes on, in seconds."""
_MOST_PIECES = 10
"""The most pieces of a file, each cut off but the last, before the user is asked to try again later."""
_CHUNK = 1 << 20


def is_offline() -> bool:
    """Returns whether ``HF_HUB_OFFLINE``, as Hugging Face's libraries read it, forbids to fetch anything."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def fetch_file(path: Path, *, url: str, sha256: str, page: str) -> None:
    """Fetches a file unless it is there, with a progress bar; other processes that want the same file wait for it.

    A transfer that is cut off goes on where it ended, in the same call and in a later one: until the file is complete
    and its SHA-256 is right, it is kept under a hidden name in the same folder.

    Args:
        path: the file.
        url: the address of the file.
        sha256: the hexadecimal SHA-256 digest of the file, or its first digits.
        page: the address of the public page with the file, for the message.

    Raises:
        UserError: if the file cannot be fetched or written, or has other content; the message says which file to put
            where.
    """
    if path.is_file():
        return
    refuse_to_load(path)
    advice = f"put {path.name} from {page} there (sha256 {sha256[:8]}...)"
    if is_offline():
        raise UserError(f"{path.absolute()} is not there, and HF_HUB_OFFLINE is set; {advice}")
    partial = path.with_name(f".{path.name}.part")
    waiting = f"another process writes to {path.parent}: waiting for it before {path.name} is fetched"
    with locked(path.parent, busy=f"{path.parent} is locked", waiting=waiting):
        if path.is_file():  # another process has fetched it meanwhile
            return
        try:
            found = _fetch(partial, url=url, sha256=sha256, title=path.name)
        except (OSError, http.client.HTTPException) as error:
            if text := disk_trouble(error, path.parent):
                raise UserError(text) from error
            kept = " (what has arrived is kept, and the same command goes on from there)" if partial.exists() else ""
            raise UserError(
                f"{path.absolute()} is not there and cannot be fetched from {url}: {_reason(error)}{kept}; {advice}"
            ) from error
        if not found.startswith(sha256):
            raise UserError(
                f"{path.absolute()} is not there, and {url} sends another file (sha256 {found[:8]}...); {advice}"
            )
        partial.replace(path)


def _fetch(partial: Path, *, url: str, sha256: str, title: str) -> str:
    """Completes the partial file and returns its SHA-256; a complete file with another one is removed.

    Raises:
        OSError: if the server does not answer, the transfer is cut off too often, or the file cannot be written.
        http.client.HTTPException: if the answer is not HTTP.
    """
    while True:
        was_begun = partial.exists()
        for piece in range(1, _MOST_PIECES + 1):
            before = _size(partial)
            try:
                _transfer(partial, url, title)
                break
            except (OSError, http.client.HTTPException) as error:
                is_stuck = _size(partial) == before or piece == _MOST_PIECES
                if is_stuck or disk_trouble(error, partial.parent):
                    raise
                _log.warning("%s was cut off after %d bytes (%s): going on", title, _size(partial), _reason(error))
                time.sleep(_PAUSE)
        found = sha256_of_file(partial)
        if found.startswith(sha256):
            return found
        partial.unlink()
        if not was_begun:  # otherwise the old beginning may be of another file
            return found


def _transfer(partial: Path, url: str, title: str) -> None:
    """Appends the rest of the file, or writes all of it where the server does not send the rest alone.

    Raises:
        OSError: if the server does not answer, or the transfer ends before the file does.
        http.client.HTTPException: if the answer is not HTTP.
    """
    from tqdm import tqdm

    begun = _size(partial)
    headers = {"User-Agent": "bsa-lightning"} | ({"Range": f"bytes={begun}-"} if begun else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if begun and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to send: the digest shows whether the file is complete
        raise
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            begun = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else begun + int(length)
        _refuse_full(partial, None if length is None else int(length))
        bar = tqdm(desc=f"fetch {title}", initial=begun, total=total, unit="B", unit_scale=True)
        with bar, partial.open("ab" if begun else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(partial) < total:
        raise ConnectionError(f"only {_size(partial)} of {total} bytes arrived")


def _refuse_full(partial: Path, needed: int | None) -> None:
    """Refuses a transfer that the disk has no room for.

    Raises:
        UserError: if it has less room than the number of bytes ``needed``, if that is known.
    """
    free = shutil.disk_usage(partial.parent).free
    if needed is not None and free < needed:
        raise UserError(
            f"the disk of {partial.parent} has {free / 1e6:.0f} MB free, but {needed / 1e6:.0f} MB are still needed;"
            " free some space and run the same command again"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    below = getattr(error, "reason", None)  # of a URLError, unless it is an answer of the server
    return " ".join(str(below if isinstance(below, Exception) else error).split())[:150] or type(error).__name__
