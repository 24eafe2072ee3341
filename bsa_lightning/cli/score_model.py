"""``lightning score --model FOLDER``: the metrics of a run, for a model or a student by itself."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bsa_lightning.cli.run_names import model_of
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json, refuse_file, refuse_folder, write_json
from bsa_lightning.common.ranges import check_number
from bsa_lightning.data.clips import Clips
from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.evaluation.evaluator import Evaluator, Process
from bsa_lightning.evaluation.score_card import run_card
from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR
from bsa_lightning.evaluation.scoring import Scoring
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.evaluation.systems import System
from bsa_lightning.models.loading import folder_sha256, load_parts, read_provenance
from bsa_lightning.models.registry import resolve_folder


def score_model(
    model: str,
    clips: Clips,
    num_captions: int = 64,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    steps: int | None = None,
    guidance: float | None = None,
    embeddings: Sequence[Embedding] = (),
    batch_size: int = 32,
    at_infinity: bool = False,
    kadtk: bool = False,
    cache: Path | None = None,
    out: Path | None = None,
) -> None:
    """Scores a model by itself: its sound of held-out captions against recorded sound, with repeats.

    For example: ``lightning score --model runs/fine-tune --clips Soundscapes --clips.num_clips 128 --clips.seed 3``.

    Args:
        model: the folder of a model, of a student, or of a run (which stands for its last student or its fine-tuned
            teacher), a hub id, or "tiny" for the built-in teacher.
        clips: held-out captioned sound, all of which is the reference, such as TangoManifest or Soundscapes.
        num_captions: the number of captions that sound is generated for, the first ones of clips; at least 1.
        seeds: the seeds of the sampling noise, one repeat each.
        steps: the number of steps of the sampler, at least 1; ``None`` takes what the model was made for.
        guidance: the guidance scale, at least 0, where 1 is no guidance; ``None`` takes what the model was made for.
        embeddings: the embeddings to score with; an empty list is LogMelStatistics.
        batch_size: the number of clips generated at once; at least 1.
        at_infinity: whether to extrapolate Frechet distances to infinitely many generated clips as well.
        kadtk: whether to compute kernel distances as the package kadtk does, too.
        cache: the folder that keeps the reference's rows and the model's samples; ``None`` is one in the user's cache
            folder.
        out: the JSON file for the card; ``None`` only prints it.
    """
    out = checked_out(out)
    if steps is not None:
        check_number("steps", steps, whole=True, at_least=1)
    settings = ScoringSettings(
        clips=clips,
        num_captions=num_captions,
        seeds=seeds,
        batch_size=batch_size,
        embeddings=embeddings,
        at_infinity=at_infinity,
        kadtk=kadtk,
        cache=cache,
    )
    parts = load_parts(resolve_folder(model_of(model)))
    steps = parts.sampling.num_steps if steps is None else steps
    check_number("steps", steps, at_most=parts.denoiser.schedule.most_steps)
    system = System(
        model="model",
        folder=parts.folder,
        num_steps=steps,
        guidance=parts.sampling.guidance,
        guidance_scale=parts.sampling.guidance_scale if guidance is None else guidance,
        sampling_scale=parts.sampling.scale(guidance),
        weighting=str(read_provenance(parts.folder).get("weighting", "")),
        method=str(read_provenance(parts.folder).get("method", "")),
    )
    for sentence in Scoring(settings).check_clips(parts.codec):
        print(f"lightning score: {sentence}", file=sys.stderr)
    card = run_card(
        settings,
        teacher=folder_sha256(parts.folder),
        guidance_scale=system.guidance_scale,
        precision="32-true",
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    evaluator = Evaluator(settings, teacher=parts, full_teacher=system, process=Process(device=device))
    found: dict[int, dict[str, float]] = {}
    for seed in settings.seeds:
        row = evaluator.score(system, seed=seed)
        found[seed] = {name: value for name, value in row.metrics.items() if name != TRAJECTORY_ERROR}
    card |= {
        "model": str(model),
        "model_sha256": card.pop("teacher"),
        "num_steps": steps,
        "nfe": row.nfe,
        "scores": _means(found),
        "scores_by_seed": {str(seed): metrics for seed, metrics in found.items()},
        "halves_of_the_reference": evaluator.halves().metrics,
    }
    if out is not None:
        write_json(out, card)
    print(json.dumps(card, indent=2))


def _means(found: dict[int, dict[str, float]]) -> dict[str, Any]:
    """Returns the mean of each metric over the seeds that have it."""
    names = dict.fromkeys(name for metrics in found.values() for name in metrics)
    values = {name: [metrics[name] for metrics in found.values() if name in metrics] for name in names}
    return {name: math.fsum(numbers) / len(numbers) for name, numbers in values.items()}


def refuse_folders(words: Sequence[str]) -> None:
    """Refuses positional words, which name two folders of sound where no model is named.

    Raises:
        UserError: if there is one.
    """
    if words:
        raise UserError(
            f"{' and '.join(words)} would be folders of sound to score, but --model is given, which is scored against"
            " --clips; leave out the folders, or --model"
        )


def checked_out(out: Path | None) -> Path | None:
    """Returns the path of the card, with links resolved, so that a link stays one and its target is replaced.

    Args:
        out: the path as it was given; ``None`` stays ``None``.

    Raises:
        UserError: if a folder is there, or a file that is no card.
    """
    if out is None:
        return None
    path = Path(out).resolve()
    refuse_folder(path, setting="out")
    refuse_file(path.parent, setting="out")
    if path.exists() and not _is_card(path):
        raise UserError(f"out is {path}, which is there and is no card of scores; name another file")
    return path


def _is_card(path: Path) -> bool:
    """Returns whether a file is a card that this command has written."""
    try:
        return path.is_file() and {"scores", "evaluator"} <= read_json(path).keys()
    except UserError:
        return False
