"""Uploads of model folders to the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from bsa_lightning.common.errors import UserError


def refuse_upload(repository: str, folder: Path) -> None:
    """Checks that this machine may write to the hub, before long work on a folder that will be uploaded.

    Args:
        repository: the repository, as "owner/name".
        folder: the folder that will be uploaded, for the message.

    Raises:
        UserError: if that is no name of a repository, there is no valid token, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    given = f'push_to_hub is "{repository}", but'
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is None:
        raise UserError(f"{given} must be a repository on the Hugging Face hub, as owner/name")
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError as error:
        raise UserError(f"{given} this machine has no token for the hub; run `hf auth login` once") from error
    except Exception as error:  # of the hub client and its transports, which have no class in common
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
        reason = "does not accept this machine's token" if refused else f"cannot be reached ({_reason(error)})"
        advice = "run `hf auth login` again" if refused else f"leave it out, and run `hf upload {repository} {folder}`"
        raise UserError(f"{given} the hub {reason}; {advice}{'' if refused else ' later'}") from error


def upload_model(folder: Path, repository: str, *, private: bool) -> str:
    """Uploads a model folder in one commit, and returns its address.

    Args:
        folder: the folder.
        repository: the repository, as "owner/name", which is made unless it exists.
        private: whether a new repository can be seen by its owner alone; one that exists stays as it is.

    Raises:
        UserError: if the folder cannot be uploaded.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(repository, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder, commit_message="A student of bsa-lightning")
    except Exception as error:  # likewise
        raise UserError(
            f"{folder} is written, but cannot be uploaded to {repository} ({_reason(error)}); run `hf upload"
            f" {repository} {folder}` to try again"
        ) from error
    return f"https://huggingface.co/{repository}"


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:150]
