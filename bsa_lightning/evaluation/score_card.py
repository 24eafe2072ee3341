"""The card of a run's scores, ``scores.json``: what was compared with what, and by which code."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.clips import Clips
from bsa_lightning.evaluation.embeddings.base import Embedding

EVALUATOR = 3
"""Rises whenever the same sound would get other numbers."""
SAME = ("clips", "teacher", "guidance_scale", "evaluator", "embeddings", "readings", "precision")
"""Scores that differ in one of these are not put into one file."""
_PACKAGES = ("torch", "torchaudio", "torchmetrics", "numpy", "scipy", "soundfile", "transformers", "diffusers")


def score_card(embeddings: Sequence[Embedding], **settings: object) -> dict[str, Any]:
    """What decides the scores of any sound, and the versions that measured; ``settings`` come first."""
    return {
        **settings,
        "evaluator": EVALUATOR,
        "embeddings": {embedding.name: embedding.fingerprint for embedding in embeddings},
        "readings": {embedding.name: embedding.reading.name for embedding in embeddings},
        "versions": versions(),
    }


def run_card(
    embeddings: Sequence[Embedding],
    *,
    clips: Clips,
    num_captions: int,
    seeds: Sequence[int],
    teacher: str,
    guidance_scale: float,
    precision: str,
) -> dict[str, Any]:
    """Of the scores of a run. ``teacher`` is its sha256; ``clips`` are known by the digest of ids and captions.

    ``precision`` is the trainer's, in which networks sample.
    """
    return score_card(
        embeddings,
        clips=clips.fingerprint(),
        teacher=teacher,
        num_reference=len(clips),
        num_missing=len(clips.missing),
        num_captions=min(num_captions, len(clips)),
        seeds=list(seeds),
        guidance_scale=guidance_scale,
        grid="trailing",
        precision=precision,
    )


def refuse_other(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: Path) -> None:
    """Refuses to add to the scores in ``path``, whose card is ``theirs``, if they compare other things.

    Raises:
        UserError: naming what differs.
    """
    # A card from before a name was recorded says nothing about it.
    if differing := [name for name in SAME if theirs.get(name, ours[name]) != ours[name]]:
        raise UserError(f"{path} holds scores of another {' and '.join(differing)}; delete it, or start another run")


def versions() -> dict[str, str]:
    """Of Python and of the packages that touch a number; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in ("bsa-lightning", *_PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
