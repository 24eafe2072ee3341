"""``lightning prepare``: audio and captions to a folder of latents and text states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bsa_lightning.cli.call import call
from bsa_lightning.cli.messages import causes
from bsa_lightning.data import (  # noqa: F401 - clips that may be named by their bare names
    captioned_folder,
    captions,
    clip_list,
    hugging_face,
    soundscapes,
    tar_shards,
    teacher_samples,
)
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.recordings import MissingClipsError, write_missing


def run(words: list[str]) -> None:
    """Runs the command."""
    print(f"{call(prepare_folder, words, refused=_list_missing)} clips prepared")


def _list_missing(error: Exception, settings: Mapping[str, Any]) -> None:
    """Writes what is missing when it is too much, as ``prepare_folder`` does when it is little enough."""
    if settings.get("list_missing") is None:
        return
    for cause in causes(error):
        if isinstance(cause, MissingClipsError):
            write_missing(Path(settings["list_missing"]), cause.missing)
            return
