"""The card of scores, ``scores.json`` in a run: what was compared with what, and by which code."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.evaluation.scoring_settings import ScoringSettings

EVALUATOR = 3
"""The version of the evaluation, which rises whenever the same sound would get other numbers."""
SAME = (
    "clips",
    "num_captions",
    "teacher",
    "guidance_scale",
    "evaluator",
    "embeddings",
    "readings",
    "precision",
    "reference",
)
"""The entries in which all scores of one file must agree."""
_PACKAGES = ("torch", "torchaudio", "torchmetrics", "numpy", "scipy", "soundfile", "transformers", "diffusers")


def score_card(embeddings: Sequence[Embedding], **settings: object) -> dict[str, Any]:
    """Returns what decides the scores of any sound, and the versions of the packages that measured them.

    Args:
        embeddings: the embeddings that scores were computed with.
        settings: further entries, which come first.
    """
    return {
        **settings,
        "evaluator": EVALUATOR,
        "embeddings": {embedding.name: embedding.fingerprint for embedding in embeddings},
        "readings": {embedding.name: embedding.reading.name for embedding in embeddings},
        "versions": versions(),
    }


def run_card(settings: ScoringSettings, *, teacher: str, guidance_scale: float, precision: str) -> dict[str, Any]:
    """Returns the card of a run's scores, on which clips are known by the digest of their ids and captions.

    Args:
        settings: the settings of the scoring, whose ``clips`` must be set.
        teacher: the SHA-256 of the teacher's folder.
        guidance_scale: the guidance scale of the ladder.
        precision: the trainer's precision, in which networks sample.
    """
    clips = settings.clips
    assert clips is not None
    return score_card(
        settings.embeddings,
        clips=clips.fingerprint(),
        teacher=teacher,
        reference="as recorded" if clips.recorded(0) is not None else "as trained: first channels, peak 0.5, cut",
        num_reference=len(clips),
        num_missing=len(clips.missing),
        num_captions=settings.num_generated,
        seeds=list(settings.seeds),
        guidance_scale=guidance_scale,
        grid="trailing",
        precision=precision,
    )


def refuse_other(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: Path) -> None:
    """Refuses to add scores to a file of scores that compare something else.

    Args:
        ours: the card of the scores to add.
        theirs: the card of the scores in the file.
        path: the path of the file.

    Raises:
        UserError: if the cards differ in one of ``SAME``; an entry that ``theirs`` does not have is not compared.
    """
    if differing := [name for name in SAME if theirs.get(name, ours[name]) != ours[name]]:
        raise UserError(f"{path} holds scores of another {' and '.join(differing)}; delete it, or start another run")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the installed packages that scores are computed with."""
    found = {"python": platform.python_version()}
    for name in ("bsa-lightning", *_PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
