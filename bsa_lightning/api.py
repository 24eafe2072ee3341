"""The Python interface: what the commands do, for notebooks and scripts; ``import bsa_lightning as bsa`` exports it.

A run that Python starts is the run that ``lightning fit`` would start of the same settings, and leaves the same folder:
its ``config.yaml`` starts it again, ``lightning report`` reads it, and ``--ckpt_path last`` goes on with it.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from bsa_lightning.cli.captions_alone import CaptionsAlone
from bsa_lightning.cli.in_process import run_in_process
from bsa_lightning.cli.ladder import default_rate, ladder_config, last_student, own_guidance, prepared
from bsa_lightning.common.cache import user_cache
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.permissions import follow_umask
from bsa_lightning.data.clips import Clips
from bsa_lightning.diffusion.weighting import Weighting
from bsa_lightning.distillation.guidance_modes import GuidanceMode
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.evaluation.folders import score_folders
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.generation.text_to_audio import Sound, TextToAudio
from bsa_lightning.models.hashing import sha256_of
from bsa_lightning.reporting import report as reporting
from bsa_lightning.training.run_files import CONFIG
from bsa_lightning.training.run_folder import RunFolder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Model: TypeAlias = "str | Path | TextToAudio | DiffusionPipeline"
"""A model folder, a hub id, "tiny" for the built-in teacher, a loaded model, or a pipeline of diffusers."""


@dataclass(frozen=True)
class Report:
    """The files that :func:`report` wrote; a notebook shows the table.

    Args:
        folder: the folder of the files.
    """

    folder: Path

    @property
    def table(self) -> str:
        """The table of scores, in Markdown."""
        return (self.folder / "table.md").read_text(encoding="utf-8")

    @property
    def figure(self) -> Path:
        """The figure: every metric over the number of network evaluations."""
        return self.folder / "figure.png"

    @property
    def page(self) -> Path:
        """The page to listen to: the same captions by every system, and a blind comparison."""
        return self.folder / "index.html"

    def _repr_markdown_(self) -> str:
        return self.table


def load_model(model: Model) -> TextToAudio:
    """A model or student that makes sound of captions: ``load_model("tiny")("Wind, with slow clicks").audios``.

    Args:
        model: the folder of a model or student, a hub id ("owner/name"), "tiny" for the built-in teacher, or a pipeline
            of diffusers, whose parts are written to the user's cache folder.

    Raises:
        UserError: if there is no such model, or a part of it cannot be read.
    """
    return model if isinstance(model, TextToAudio) else TextToAudio(_folder(model))


def sample(
    model: Model,
    captions: str | Sequence[str],
    *,
    num_steps: int | None = None,
    guidance_scale: float | None = None,
    seed: int = 0,
) -> Sound:
    """Makes one clip a caption, by DDIM.

    Args:
        model: as for :func:`load_model`.
        captions: one caption or several.
        num_steps: the number of steps of the sampler, at least 1; ``None`` takes what the model was made for.
        guidance_scale: g in uncond + g (cond - uncond), from 0 to 1000; ``None`` takes what the model was made for.
        seed: the seed of the noise, at least 0.

    Raises:
        UserError: if a setting is out of its range, or not one that the model can be sampled with.
    """
    return load_model(model)(captions, num_steps=num_steps, guidance_scale=guidance_scale, seed=seed)


def distill(
    teacher: Model = "tiny",
    *,
    train: Clips | str | Path | None = None,
    captions: str | Path | None = None,
    val: Clips | str | Path | None = None,
    out: str | Path,
    steps: tuple[int, int],
    updates: int | None = None,
    weighting: Weighting | None = None,
    guidance: GuidanceMode | None = None,
    latents_per_caption: int | None = None,
    scoring: ScoringSettings | None = None,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
) -> TextToAudio:
    """Distils a teacher in rounds that halve its steps, as ``lightning fit`` does, and returns the last student.

    Args:
        teacher: as for :func:`load_model`.
        train: the sound to train on: clips, whose latents are prepared once and kept in the user's cache folder, or a
            folder that ``lightning prepare`` wrote. ``None`` trains on captions alone.
        captions: a file of captions, instead of ``train`` and ``val``: the teacher samples the latents, and the run is
            scored, exported and reported as well, as by ``lightning distill``; the student that comes back is the
            complete model in ``student/`` of the run. Called again, it goes on where it was stopped.
        val: the sound to validate on, as ``train``; ``None`` does not validate.
        out: the folder of the run.
        steps: the number of steps of the teacher and of the last student; the first is a power of two times the second.
        updates: the number of updates of each round, at least 1; ``None`` is 1000, and 60 for captions alone on a CPU.
        weighting: the weight w(SNR) of the squared error in x; ``None`` is BSA with gamma = 5, the paper's.
        guidance: where the guidance of the teacher goes; ``None`` bakes in the scale that the teacher is made for.
        latents_per_caption: the number of latents that the teacher samples of each caption; ``None`` is as many as make
            256 latents.
        scoring: what is scored after each round, and by :func:`evaluate`; ``None`` scores nothing, or, for captions
            alone, 48 clips against the teacher's own sound of held-out captions.
        seed: the seed of order, noise, times and caption dropout, at least 0.
        settings: further settings of ``lightning fit``, by dotted name, which go before all others, such as
            ``{"data.batch_size": 8, "trainer.devices": 2, "overwrite": True}``; ``{"ckpt_path": "last"}`` goes on with
            a run that was stopped. The learning rate is 1e-4 for the built-in teachers and 3e-5 for others, unless
            ``"model.optimizer.init_args.lr"`` is given.

    Raises:
        UserError: naming a setting that is wrong; nothing is left behind then.
    """
    folder = _folder(teacher)
    if not (isinstance(steps, Sequence) and len(steps) == 2):
        raise UserError(f"steps is {steps!r}, but must be two numbers, of the teacher and the last student, as (8, 1)")
    if (train is None) == (captions is None) or (captions is not None and val is not None):
        raise UserError(
            "train, val and captions do not fit together; name either train, and val if there is any, or captions alone"
        )
    if captions is not None:
        return TextToAudio(
            CaptionsAlone(
                str(folder),
                Path(captions),
                Path(out),
                steps,
                updates=updates,
                weighting=weighting,
                guidance=guidance,
                latents_per_caption=latents_per_caption,
                scoring=scoring,
                seed=seed,
                settings=settings or {},
            ).run()
        )
    assert train is not None
    plan = Plan(*steps, updates=1000 if updates is None else updates)
    config = ladder_config(
        folder,
        run=out,
        plan=plan,
        train=prepared(train, folder),
        val=None if val is None else prepared(val, folder),
        weighting=weighting,
        guidance=own_guidance(folder) if guidance is None else guidance,
        learning_rate=default_rate(folder),
        scoring=scoring,
        seed=seed,
    )
    run_in_process("fit", config, settings)
    return TextToAudio(last_student(out))


def evaluate(run: str | Path, settings: Mapping[str, object] | None = None) -> Path:
    """Scores the students of a run, their teacher and their rivals with all seeds, as ``lightning test`` does.

    Args:
        run: the folder of a finished run whose settings say what is scored (``scoring``).
        settings: further settings of ``lightning test``, by dotted name, such as ``{"scoring.seeds": [0, 1]}``.

    Returns:
        The run's ``scores.csv``.

    Raises:
        UserError: if there is nothing to score.
    """
    config = RunFolder(Path(run)).config()
    if not config:
        raise UserError(f"run is {run}, which holds no {CONFIG}; name the folder of a run")
    run_in_process("test", config | {"run": str(run)}, settings)
    return Path(run) / "scores.csv"


def report(*runs: str | Path, out: str | Path | None = None) -> Report:
    """The table, figures and listening page of scored runs, as ``lightning report`` writes them.

    Args:
        runs: the folders of scored runs.
        out: the folder for the files; ``None`` is ``report/`` of the first run.

    Raises:
        UserError: if a run is not scored, or the folder holds files of something else.
    """
    if not runs:
        raise UserError("runs is empty; name the folder of a scored run")
    folder = Path(runs[0]) / "report" if out is None else Path(out)
    with contextlib.redirect_stdout(io.StringIO()):  # the table, which a notebook shows
        reporting.report([Path(run) for run in runs], out=folder)
    return Report(folder)


def score(
    reference: str | Path,
    generated: str | Path,
    *,
    embeddings: Sequence[Embedding] = (),
    captions: str | Path | None = None,
    at_infinity: bool = False,
    kadtk: bool = False,
) -> dict[str, Any]:
    """Scores one folder of sound against another, as ``lightning score`` does.

    Args:
        reference: the folder of real sound.
        generated: the folder of a system's sound.
        embeddings: what the sound is heard with; an empty sequence is log-mel statistics.
        captions: a JSON object of file names, without suffix, to captions; needed for CLAP scores and for obedience.
        at_infinity: whether to extrapolate Frechet distances to infinitely many generated clips as well.
        kadtk: whether to compute kernel distances as the package kadtk does, too.

    Returns:
        The card: ``scores``, and all that decides them.

    Raises:
        UserError: if a folder holds no audio, or too little of it.
    """
    return score_folders(
        Path(reference),
        Path(generated),
        embeddings=embeddings,
        captions=None if captions is None else Path(captions),
        at_infinity=at_infinity,
        kadtk=kadtk,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def _folder(model: Model) -> Path | str:
    """Where a model is, for settings: the name "tiny" is kept, so that a run records it."""
    if isinstance(model, TextToAudio):
        return model.folder
    save: Callable[[Path], None] | None = getattr(model, "save_pretrained", None)
    if save is None and not isinstance(model, str | Path):
        raise UserError(f"model is {model!r}, but must be a folder, a hub id, a loaded model or a pipeline; give one")
    if save is None:
        return model
    models = user_cache("models")
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models) as written:
        folder = Path(written) / type(model).__name__
        save(folder)
        final = models / f"{folder.name}-{sha256_of(folder)[:16]}"
        if not final.exists():
            follow_umask(folder, probe=Path(written) / "probe")
            folder.rename(final)
    return final
