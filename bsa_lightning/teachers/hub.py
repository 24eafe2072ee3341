"""Files from the hub, or one sentence that says which to put where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from bsa_lightning.errors import UserError


def fetch(hub_id: str, files: Sequence[str], *, optional: Sequence[str] = (), option: str) -> Path:
    """The local folder of a hub repository with ``files``, and of the ``optional`` ones those that it has.

    Args:
        hub_id: "owner/name".
        files: that must be there.
        optional: of which at least one must be there, if ``files`` is empty.
        option: what the user would name a folder with instead.

    Raises:
        UserError: if they cannot be had, for want of a network or because there is no such repository.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=[*files, *optional]))
    except (OSError, ValueError, RuntimeError) as error:  # what the hub and its transports raise, offline and on
        raise UserError(_advice(hub_id, files or optional, option)) from error
    if lacking := [name for name in files if not (folder / name).is_file()]:
        raise UserError(f"{hub_id} on the hub has no {lacking[0]}; is it a checkpoint in Tango's layout?")
    if not any((folder / name).is_file() for name in [*files, *optional]):
        raise UserError(_advice(hub_id, files or optional, option))
    return folder


def licence_of(folder: Path) -> str | None:
    """The licence in the head of a model card; none where there is no card, or it names none."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    head = card.read_text(encoding="utf-8").split("---")
    try:
        content = yaml.safe_load(head[1]) if len(head) > 2 and not head[0].strip() else None
    except yaml.YAMLError:
        return None
    return str(content["license"]) if isinstance(content, dict) and "license" in content else None


def _advice(hub_id: str, files: Sequence[str], option: str) -> str:
    return (
        f"{hub_id} cannot be fetched from the hub; on a machine that can, run"
        f" `hf download {hub_id} {' '.join(files)} --local-dir {hub_id.split('/')[1]}`,"
        f" copy that folder here, and name it as {option}"
    )
