"""``lightning prepare``: audio and captions to a folder of latents and text states."""

from __future__ import annotations

from bsa_lightning.cli.call import call
from bsa_lightning.data import captions, soundscapes, teacher_samples  # noqa: F401 - clips named by bare names
from bsa_lightning.data.prepare import prepare_folder


def run(words: list[str]) -> None:
    """Runs the command."""
    print(f"{call(prepare_folder, words)} clips prepared")
