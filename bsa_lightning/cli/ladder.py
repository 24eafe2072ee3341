"""The settings of ``lightning fit`` for a ladder that Python or ``lightning distill`` describes by objects."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from bsa_lightning.cli.as_config import as_config
from bsa_lightning.common.cache import user_cache
from bsa_lightning.common.errors import UserError
from bsa_lightning.data.clips import Clips
from bsa_lightning.data.datamodule import AudioCapsLatents, Prepared
from bsa_lightning.diffusion.weighting import BSA, Weighting
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, GuidanceMode
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.models.hashing import sha256_of
from bsa_lightning.models.loading import read_sampling
from bsa_lightning.models.registry import BUILT_IN, resolve_folder
from bsa_lightning.training.run_folder import RunFolder


def ladder_config(
    teacher: str | Path,
    *,
    run: str | Path,
    plan: Plan,
    train: Prepared,
    val: Prepared | None,
    weighting: Weighting | None,
    guidance: GuidanceMode,
    learning_rate: float,
    scoring: ScoringSettings | None,
    seed: int,
) -> dict[str, Any]:
    """Returns the settings as YAML has them.

    Args:
        teacher: the model folder of the teacher, a hub id, or "tiny".
        run: the folder of the run.
        plan: the rounds, each with as many updates.
        train: the latents to train on.
        val: the latents to validate on at the end of each round; ``None`` does not validate.
        weighting: the weighting of the loss; ``None`` is BSA with gamma = 5, the paper's.
        guidance: the mode of guidance.
        learning_rate: the learning rate of Adam at the start of each round.
        scoring: what is scored after each round; ``None`` scores nothing.
        seed: the seed of order, noise, times and caption dropout.
    """
    return {
        "run": str(run),
        "seed_everything": seed,
        "wandb": "disabled",
        "model": {
            **as_config(ProgressiveDistillation),
            "init_args": {
                "teacher": str(teacher),
                "plan": as_config(plan),
                "weighting": as_config(weighting or BSA()),
                "guidance": as_config(guidance),
                "optimizer": {**as_config(torch.optim.Adam), "init_args": {"lr": learning_rate}},
                "seed": seed,
            },
        },
        "data": {
            **as_config(AudioCapsLatents),
            "init_args": {"train": as_config(train), "val": None if val is None else as_config(val), "seed": seed},
        },
        "trainer": {
            "val_check_interval": plan.updates,
            "check_val_every_n_epoch": None,
            "limit_val_batches": 0 if val is None else None,
        },
        "scoring": {} if scoring is None else as_config(scoring),
    }


def last_student(run: str | Path) -> Path:
    """Returns the folder of the last student of a fit that has ended.

    Raises:
        UserError: if the fit ended before that student was finished.
    """
    plan = Plan(**RunFolder(Path(run)).config()["model"]["init_args"]["plan"])
    folder = Path(run) / "rounds" / plan.rounds[-1].folder
    if not folder.is_dir():
        raise UserError(
            f"the training in {run} ended before its student of {plan.end_steps} steps was finished, since a limit such"
            " as trainer.max_steps or trainer.max_time was reached; raise the limit, and go on with the run"
        )
    return folder


def default_rate(teacher: str | Path) -> float:
    """Returns the learning rate if none is named: 1e-4 for the small built-in teachers, 3e-5 for all others."""
    return 1e-4 if str(teacher) in BUILT_IN else 3e-5


def own_guidance(teacher: str | Path) -> GuidanceMode:
    """Returns the mode that bakes in the scale of the teacher, or embeds those that the input of its network takes."""
    own = read_sampling(teacher)
    if own.guidance == "embedded":
        low, high = own.guidance_range or (1.0, max(6.0, own.guidance_scale))
        return Embedded(own.guidance_scale, low, high)
    return Baked(own.guidance_scale if own.guidance == "outside" else 1.0)


def prepared(data: Clips | str | Path, teacher: str | Path) -> Prepared:
    """Returns prepared latents; those of clips are made in the user's cache folder, once for each teacher and sound."""
    if not isinstance(data, Clips):
        return Prepared(str(data))
    clips = hashlib.sha256(f"{data.fingerprint()} {data.sound_state()}".encode()).hexdigest()
    store = user_cache("prepared") / f"{clips[:16]}-{sha256_of(resolve_folder(teacher))[:16]}"
    return Prepared(str(store), clips=data, teacher=str(teacher))
