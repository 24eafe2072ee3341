"""Files from the Hugging Face hub, or an error that says which files to put where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bsa_lightning.common.errors import UserError

_MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.py", "*.md"]
"""Patterns of the files of a model folder that are downloaded: weights in one format only, and its card."""


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
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=[*files, *optional]))
    except (OSError, ValueError, RuntimeError) as error:  # raised by the hub client and its transports
        raise UserError(_advice(hub_id, files, option, str(error).strip().split("\n", 1)[0])) from error
    # Offline, the client accepts a cache that has only some of the files.
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise UserError(_advice(hub_id, files, option, f"no {missing[0]}"))
    return folder


def fetch_model(hub_id: str) -> Path:
    """A local folder with a model in the layout of diffusers, downloaded from the hub unless it is in the cache.

    Args:
        hub_id: the repository, as "owner/name".

    Raises:
        UserError: if the model cannot be downloaded, such as without a network or for an unknown repository.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_MODEL_FILES))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n", 1)[0][:150]
        raise UserError(
            f'model is "{hub_id}", but no such folder exists, and it cannot be fetched from the hub ({reason}); name a'
            f" model folder, or run `hf download {hub_id} --local-dir {hub_id.split('/')[1]}` on a machine that can"
        ) from error


def _advice(hub_id: str, files: Sequence[str], option: str, reason: str) -> str:
    return (
        f"{hub_id} is not a folder here and cannot be fetched from the hub ({reason[:150]}); on a machine that can, run"
        f" `hf download {hub_id} {' '.join(files)} --local-dir {hub_id.split('/')[1]}`,"
        f" copy that folder here, and name it as {option}"
    )
