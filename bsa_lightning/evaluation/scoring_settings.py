"""The settings of the scoring of a run, ``--scoring.*`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bsa_lightning.common.cache import user_cache
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number, check_seed
from bsa_lightning.data.clips import Clips
from bsa_lightning.evaluation.embeddings.base import Embedding, refuse_repeated
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.generation.samplers import DDIM, DPMSolver, Sampler


@dataclass
class ScoringSettings:
    """The settings of the scoring of a run: what is scored, and how.

    Rivals are the undistilled teacher at the student's number of steps and at its number of network evaluations, with
    and without guidance.

    Args:
        clips: held-out captioned sound, all of which is the reference; ``None`` scores nothing.
        num_captions: the number of captions that sound is generated for, the first ones of ``clips``; at least 1.
        seeds: the seeds of the sampling noise, one repeat each; at least 0, no two alike.
        batch_size: the number of clips generated at once; at least 1.
        num_samples: the number of wav files of each system to keep, of the first seed; at least 0.
        during_fit: whether to score after each round of ``fit``, with the first seed.
        baselines: further whole models to score at the first teacher's steps and guidance, for example "tiny".
        rivals: the samplers of the undistilled teacher that students are compared with in ``test``; ``None`` is DDIM
            and DPM-Solver++. An empty list leaves guided DDIM at the steps of the ladder, which is always scored.
        renoising_steps: the further numbers of steps, at least 2, in which a student of one segment of consistency
            distillation is scored in ``test``, with new noise in every step; divisors of ``start_steps``.
        embeddings: the embeddings to score with, each of which has its own columns; an empty list is log-mel
            statistics.
        at_infinity: whether to extrapolate Frechet distances to infinitely many generated clips as well, with the same
            reference. Left out if there are fewer than four clips, or eight rows, for each dimension of an embedding.
        kadtk: whether to compute kernel distances as the package kadtk does, too.
        cache: the folder that keeps the reference's rows and the teacher's samples; ``None`` is one in the user's cache
            folder.

    Raises:
        UserError: if a setting is out of its range.
    """

    clips: Clips | None = None
    num_captions: int = 64
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    batch_size: int = 32
    num_samples: int = 4
    during_fit: bool = True
    baselines: Sequence[str] = ()
    rivals: Sequence[Sampler] | None = None
    renoising_steps: Sequence[int] = ()
    embeddings: Sequence[Embedding] = ()
    at_infinity: bool = False
    kadtk: bool = False
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.clips is not None and not isinstance(self.clips, Clips):
            raise UserError(
                f"clips is {self.clips!r}, but must be captioned sound, such as Soundscapes or TangoManifest"
            )
        if not self.seeds:
            raise UserError("seeds is empty, but scoring needs at least one sampling seed")
        for seed in self.seeds:
            check_seed("seeds", seed)
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds is {list(self.seeds)}, but each seed counts once; leave out what is repeated")
        check_number("num_captions", self.num_captions, whole=True, at_least=1)
        check_number("batch_size", self.batch_size, whole=True, at_least=1)
        check_number("num_samples", self.num_samples, whole=True, at_least=0)
        for steps in self.renoising_steps:
            check_number("renoising_steps", steps, whole=True, at_least=2, advice="one step needs no new noise")
        if strangers := [rival for rival in self.samplers if not isinstance(rival, Sampler)]:
            raise UserError(f"rivals holds {strangers[0]!r}, but must list samplers, such as DDIM and DPMSolver")
        names = [sampler.name for sampler in self.samplers]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UserError(f"rivals names {repeated[0]} {names.count(repeated[0])} times; name each sampler once")
        self.embeddings = list(self.embeddings) or [LogMelStatistics()]
        refuse_repeated(self.embeddings)

    @property
    def num_generated(self) -> int:
        """The number of captions that sound is generated for: ``num_captions``, or all if there are fewer clips."""
        return min(self.num_captions, 0 if self.clips is None else len(self.clips))

    @property
    def samplers(self) -> Sequence[Sampler]:
        """The samplers of the rivals."""
        return [DDIM(), DPMSolver()] if self.rivals is None else self.rivals

    @property
    def cache_folder(self) -> Path:
        """The folder that keeps rows and samples between runs."""
        return user_cache("scores") if self.cache is None else Path(self.cache)
