"""Files from the Hugging Face hub, or an error that says which files to put where.

Hugging Face's own client fetches them: it resumes, shows its bars, and keeps them below ``HF_HOME``. What it does not
do is to compare what has arrived with the digest under which the hub lists it.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from bsa_lightning.common.download import is_offline
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import disk_trouble, sha256_of_file
from bsa_lightning.common.settings_alone import refuse_to_load

LICENCE_FILES = ("*LICEN*", "*icen[cs]e*", "*NOTICE*", "*otice*")
"""Patterns of licence and notice files, which every copy of a model must carry."""
_MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.py", "*.md", *LICENCE_FILES]
"""Patterns of the files of a model folder that are downloaded: weights in one format only, its card and its licence."""


def fetch(hub_id: str, files: Sequence[str], *, optional: Sequence[str] = (), option: str) -> Path:
    """A local folder with files of a hub repository, downloaded unless they are in the cache.

    Args:
        hub_id: the repository, as "owner/name".
        files: the names of the files that the repository must have.
        optional: the names of files to download if the repository has them.
        option: the option with which the user can name a folder instead, for the message.

    Raises:
        UserError: if the files cannot be downloaded, such as without a network or for an unknown repository.
    """
    try:
        folder = _snapshot(hub_id, [*files, *optional])
    except _NotFetchedError as error:
        raise UserError(_advice(hub_id, files, option, str(error))) from error
    # Offline, the client accepts a cache that has only some of the files.
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise UserError(_advice(hub_id, files, option, f"no {missing[0]}"))
    return folder


@functools.cache
def fetch_model(hub_id: str) -> Path:
    """A local folder with a model in the layout of diffusers, downloaded from the hub unless it is in the cache.

    The hub is asked once in a process, so that all parts are read from the same revision.

    Args:
        hub_id: the repository, as "owner/name".

    Raises:
        UserError: if the model cannot be downloaded, such as without a network or for an unknown repository.
    """
    try:
        return _snapshot(hub_id, _MODEL_FILES)
    except _NotFetchedError as error:
        raise UserError(
            f'model is "{hub_id}", but no such folder exists, and it cannot be fetched from the hub ({error}); name a'
            f" model folder, or run `hf download {hub_id} --local-dir {hub_id.split('/')[1]}` on a machine that can"
        ) from error


class _NotFetchedError(Exception):
    """Files of a repository that cannot be had; the message is the reason, as a part of a sentence."""


def _snapshot(hub_id: str, patterns: Sequence[str]) -> Path:
    """A local folder with the files of a repository that match ``patterns``.

    Raises:
        _NotFetchedError: if they cannot be had.
        UserError: if the disk is full or cannot be written.
    """
    refuse_to_load(hub_id)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import enable_progress_bars

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        enable_progress_bars()  # reading a model disables them, since transformers' switch is for all of its bars
    began = time.time()
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=list(patterns)))
        _check_arrived(folder, since=began)
    except Exception as error:  # the client lets errors of its transports through, whose classes change
        if text := disk_trouble(error, Path(constants.HF_HUB_CACHE)):
            raise UserError(text) from error
        reason = "HF_HUB_OFFLINE is set" if is_offline() else str(error).strip().split("\n", 1)[0][:150]
        raise _NotFetchedError(reason or type(error).__name__) from error
    return folder


def _check_arrived(folder: Path, *, since: float) -> None:
    """Checks the files of a snapshot that were fetched after ``since``, a time in seconds, and removes wrong ones.

    The cache keeps a file under the digest that the hub lists: SHA-256 for large files, and Git's for the others.

    Raises:
        OSError: if the content of a file has another digest.
    """
    for path in sorted(folder.rglob("*")):
        blob = path.resolve()
        if blob.parent.name != "blobs" or blob.stat().st_mtime < since:
            continue
        found = _digest(blob, len(blob.name))
        if found is not None and found != blob.name:
            blob.unlink()
            path.unlink()
            raise OSError(f"{path.name} arrived damaged: its digest is {found[:8]}..., not {blob.name[:8]}...")


def _digest(path: Path, length: int) -> str | None:
    """The hexadecimal digest of a file with that many digits, ``None`` if the hub uses no digest with as many."""
    if length == hashlib.sha256().digest_size * 2:
        return sha256_of_file(path)
    if length == hashlib.sha1().digest_size * 2:  # noqa: S324 - it is Git's
        return hashlib.sha1(b"blob %d\0" % path.stat().st_size + path.read_bytes()).hexdigest()  # noqa: S324
    return None


def _advice(hub_id: str, files: Sequence[str], option: str, reason: str) -> str:
    return (
        f"{hub_id} is not a folder here and cannot be fetched from the hub ({reason}); on a machine that can, run"
        f" `hf download {hub_id} {' '.join(files)} --local-dir {hub_id.split('/')[1]}`,"
        f" copy that folder here, and name it as {option}"
    )
