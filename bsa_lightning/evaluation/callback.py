"""Scoring inside a run: after every round of ``fit``, and in full in ``test``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from tqdm import tqdm

from bsa_lightning.cache import user_cache
from bsa_lightning.data.clips import Clips
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.distillation.plan import Round
from bsa_lightning.distillation.promotion import RoundObserver
from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.card import refuse_other, run_card
from bsa_lightning.evaluation.embeddings import Embedding, LogMelStatistics
from bsa_lightning.evaluation.kept_samples import KeptSamples, slug
from bsa_lightning.evaluation.measures import refuse_few, refuse_repeated
from bsa_lightning.evaluation.paired import FEWEST
from bsa_lightning.evaluation.protocol import Protocol
from bsa_lightning.evaluation.row_store import save_rows
from bsa_lightning.evaluation.samplers import DDIM, DPMSolver, Sampler
from bsa_lightning.evaluation.scores import Score, ScoreFile
from bsa_lightning.evaluation.student_differences import write_student_differences
from bsa_lightning.evaluation.systems import System, rivals_of, student_system, teacher_system
from bsa_lightning.evaluation.telling import tell_samples, tell_score, tell_table
from bsa_lightning.files import read_json, refuse_file, write_json
from bsa_lightning.ranges import check_number, check_seed
from bsa_lightning.teachers.folder import (
    folder_sha256,
    load_codec,
    load_conditioner,
    load_teacher,
    read_sampling,
    resolve_folder,
)

_log = logging.getLogger(__name__)


class Scoring(RoundObserver):
    """Scores a round's student, and the undistilled teacher under DDIM at the same steps, into ``scores.csv``.

    ``fit`` scores with the first seed after every round; ``test`` scores the teacher at every step count, every student
    of the run and its rivals with all seeds, and skips what is scored already. Rivals are the undistilled teacher at
    the student's number of steps and at its number of network evaluations, with and without guidance.

    Args:
        clips: held-out captioned sound; all of it is the reference.
        num_captions: generate for the first so many clips; at least 1.
        seeds: of the sampling noise, one repeat each; at least 0, no two alike.
        batch_size: clips generated at once; at least 1.
        num_samples: wav files to keep of each system, of the first seed; at least 0.
        during_fit: whether to score after each round of ``fit``.
        baselines: further whole models to score at the first teacher's steps and guidance, for example "tiny".
        rivals: samplers of the undistilled teacher that students are compared with in ``test``; ``None`` is DDIM and
            DPM-Solver++. An empty list leaves guided DDIM at the steps of the ladder, which is always scored.
        embeddings: each gives distances, and what else it can, in columns of its name; none is log-mel statistics.
        at_infinity: also extrapolate Frechet distances to infinitely many generated clips; the reference stays.
            Left out where there are fewer than four clips, or eight rows, for each dimension of an embedding.
        kadtk: also compute kernel distances as the package kadtk does.
        cache: folder that keeps the reference's rows and the teacher's samples; None is one in the user's cache folder.
    """

    def __init__(
        self,
        clips: Clips,
        num_captions: int = 64,
        seeds: Sequence[int] = (0, 1, 2, 3, 4),
        batch_size: int = 32,
        num_samples: int = 4,
        during_fit: bool = True,
        baselines: Sequence[str] = (),
        embeddings: Sequence[Embedding] = (),
        at_infinity: bool = False,
        kadtk: bool = False,
        cache: Path | None = None,
        rivals: Sequence[Sampler] | None = None,
    ) -> None:
        if not isinstance(clips, Clips):
            raise UserError(f"clips is {clips!r}, but must be captioned sound, such as Soundscapes or TangoManifest")
        if not seeds:
            raise UserError("seeds is empty, but scoring needs at least one sampling seed")
        for seed in seeds:
            check_seed("seeds", seed)
        if len(set(seeds)) < len(seeds):
            raise UserError(f"seeds is {list(seeds)}, but each must come once; a repeat of the same noise is none")
        check_number("num_captions", num_captions, whole=True, at_least=1)
        check_number("batch_size", batch_size, whole=True, at_least=1)
        check_number("num_samples", num_samples, whole=True, at_least=0)
        self.clips = clips
        self.num_captions = num_captions
        self.seeds = list(seeds)
        self.batch_size = batch_size
        self.num_samples = num_samples
        self.during_fit = during_fit
        self.baselines = list(baselines)
        self.rivals = [DDIM(), DPMSolver()] if rivals is None else list(rivals)
        if strangers := [rival for rival in self.rivals if not isinstance(rival, Sampler)]:
            raise UserError(f"rivals holds {strangers[0]!r}, but must list samplers, such as DDIM and DPMSolver")
        names = [sampler.name for sampler in self.rivals]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UserError(f"rivals names {repeated[0]} {names.count(repeated[0])} times; name each sampler once")
        self.embeddings = list(embeddings) or [LogMelStatistics()]
        refuse_repeated(self.embeddings)
        self.at_infinity = at_infinity
        self.kadtk = kadtk
        self.cache = user_cache("scores") if cache is None else Path(cache)
        self._protocol: Protocol | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what would end the scoring, before the training starts; forgets what belongs to another trainer."""
        self._protocol = None
        if not isinstance(pl_module, ProgressiveDistillation) or stage not in ("fit", "test"):
            return
        codec = load_codec(pl_module.teacher_name)
        num_clips = min(self.num_captions, len(self.clips))
        for embedding in self.embeddings:
            few = refuse_few(embedding, num_clips=num_clips, num_samples=codec.num_samples, rate=codec.sample_rate)
            if few and trainer.is_global_zero:
                said = "is left out" if embedding.is_learnt else "says little"
                _log.warning("%s %s: %s", embedding.metric, said, few)
        size = {"sample_rate": codec.sample_rate, "num_samples": codec.num_samples}
        self.clips.waveform(0, **size, num_channels=codec.num_channels)
        # Read whole: a broken file would end the scoring hours later.
        for i in range(len(self.clips) if self.during_fit or stage == "test" else 0):
            self.clips.recording(i, seconds=codec.num_samples / codec.sample_rate, num_channels=codec.num_channels)
        for model in self.baselines:
            self._baseline(pl_module, model)
        refuse_file(self.cache, setting="cache")
        if stage == "test" or trainer.ckpt_path is not None:
            self._refuse_other(pl_module, self._card(trainer, pl_module))

    def on_round_end(self, trainer: Trainer, module: ProgressiveDistillation, round_: Round, folder: Path) -> None:
        if self.during_fit:
            teacher = self._teacher(module, round_.num_steps)
            self._score_all(trainer, module, [teacher, student_system(folder)], self.seeds[:1])

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, ProgressiveDistillation):
            raise UserError(f"model is {type(pl_module).__name__}, but test scores ProgressiveDistillation's students")
        steps = [pl_module.plan.start_steps, *(round_.num_steps for round_ in pl_module.plan.rounds)]
        systems = [self._teacher(pl_module, num_steps) for num_steps in steps]
        folders = [pl_module.run_folder / "rounds" / round_.folder for round_ in pl_module.plan.rounds]
        students = [folder for folder in folders if folder.is_dir()]
        if not students:
            raise UserError(f"{pl_module.run_folder} has no students to score; run lightning fit first")
        if lacking := [folder.name for folder in folders if folder not in students]:
            rank_zero_warn(
                f"{pl_module.run_folder} has no student {', '.join(lacking)}, so the others alone are scored"
            )
        ladder = [student_system(folder) for folder in students]
        systems += rivals_of(
            ladder,
            teacher=resolve_folder(pl_module.teacher_name),
            guidance_scale=pl_module.guidance.scale,
            samplers=self.rivals,
        )
        systems += [*ladder, *(self._baseline(pl_module, model) for model in self.baselines)]
        systems = list(dict.fromkeys(systems))
        self._score_all(trainer, pl_module, systems, self.seeds)
        if min(self.num_captions, len(self.clips)) < FEWEST:
            return
        path = pl_module.run_folder / "differences.csv"
        # A test that was ended between the last score and these has left nothing else to do.
        if self._protocol is None and not trainer.strategy.broadcast(path.is_file()):
            self._make_protocol(trainer, pl_module)
        if trainer.is_global_zero and self._protocol is not None:
            write_student_differences(
                path,
                systems,
                measures=self._protocol.measures,
                rows_of=lambda system: self._rows_file(pl_module.run_folder, system),
                seed=self.seeds[0],
            )

    def _teacher(self, module: ProgressiveDistillation, num_steps: int) -> System:
        return teacher_system(
            resolve_folder(module.teacher_name), num_steps=num_steps, guidance_scale=module.guidance.scale
        )

    def _baseline(self, module: ProgressiveDistillation, model: str) -> System:
        for part, load in (("codec", load_codec), ("text encoder", load_conditioner)):
            if load(model).fingerprint != load(module.teacher_name).fingerprint:
                raise UserError(
                    f'baselines names "{model}", whose {part} is not that of teacher "{module.teacher_name}";'
                    " leave it out"
                )
        if (own := read_sampling(model).guidance) != "outside":
            raise UserError(f'baselines names "{model}", a student with guidance {own}; name an undistilled model')
        return teacher_system(
            resolve_folder(model),
            num_steps=module.plan.start_steps,
            guidance_scale=module.guidance.scale,
            model=f"baseline-{slug(model)}",
        )

    def _score_all(
        self, trainer: Trainer, module: ProgressiveDistillation, systems: Sequence[System], seeds: Sequence[int]
    ) -> None:
        """Scores every system with every seed, except what ``scores.csv`` has; on every rank alike."""
        file = ScoreFile(module.run_folder / "scores.csv")
        self._claim(trainer, module, file)
        done = trainer.strategy.broadcast(file.keys())
        captions = min(self.num_captions, len(self.clips))
        todo = [
            (system, seed)
            for seed in seeds
            for system in systems
            if system.score(seed=seed, num_clips=captions).key not in done
        ]
        if not todo:
            return
        sizes = -(-captions // trainer.world_size)  # of the first rank, which shows the progress
        generator_state = torch.get_rng_state()
        with tqdm(desc="score", unit="clip", total=sizes * len(todo), disable=not trainer.is_global_zero) as bar:
            protocol = self._make_protocol(trainer, module)
            protocol.on_batch = bar.update
            if not any(key[0] == "reference" for key in done):
                self._record(trainer, file, protocol.halves())
            for system, seed in todo:
                bar.set_description(f"score {system.name} seed {seed}")
                is_first = seed == self.seeds[0]
                keep = KeptSamples(module.run_folder, system, self.clips, self.num_samples, protocol.codec.sample_rate)
                score = protocol.score(system, seed=seed, on_clip=keep, num_heard=keep.num_samples if is_first else 0)
                if is_first and trainer.is_global_zero:  # before the score, which says that all this is done
                    save_rows(self._rows_file(module.run_folder, system), protocol.rows)
                self._record(trainer, file, score)
                trainer.strategy.barrier("samples")
                if is_first and trainer.is_global_zero:
                    tell_samples(trainer.loggers, system.name, *keep.written())
        torch.set_rng_state(generator_state)
        if trainer.is_global_zero:
            tell_table(trainer.loggers, file.rows())

    def _make_protocol(self, trainer: Trainer, module: ProgressiveDistillation) -> Protocol:
        """Made once: reference rows, text states and the teacher's own samples are kept between rounds."""
        if self._protocol is None:
            self._protocol = Protocol(
                self.clips,
                num_captions=self.num_captions,
                batch_size=self.batch_size,
                embeddings=self.embeddings,
                teacher=load_teacher(module.teacher_name),
                zero=self._teacher(module, module.plan.start_steps),
                at_infinity=self.at_infinity,
                kadtk=self.kadtk,
                cache=self.cache,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                device=module.device,
                precision=trainer.precision_plugin.forward_context,
            )
        return self._protocol

    def _rows_file(self, run_folder: Path, system: System) -> Path:
        """What a system's clips of the first seed gave: differences need it clip by clip."""
        num_captions = min(self.num_captions, len(self.clips))
        return run_folder / "rows" / f"{system.name}-seed{self.seeds[0]}-{num_captions}clips.safetensors"

    def _claim(self, trainer: Trainer, module: ProgressiveDistillation, file: ScoreFile) -> None:
        """Notes beside the scores what they compare with, and refuses to mix them with others."""
        ours = self._card(trainer, module)
        self._refuse_other(module, ours)
        trainer.strategy.barrier("score card")
        if trainer.is_global_zero:
            write_json(file.path.with_suffix(".json"), ours)

    def _refuse_other(self, module: ProgressiveDistillation, ours: Mapping[str, Any]) -> None:
        card, scores = (module.run_folder / name for name in ("scores.json", "scores.csv"))
        if card.is_file() and scores.is_file():  # whoever deletes the scores keeps the card
            refuse_other(ours, read_json(card), scores)

    def _card(self, trainer: Trainer, module: ProgressiveDistillation) -> dict[str, Any]:
        return run_card(
            self.embeddings,
            clips=self.clips,
            num_captions=self.num_captions,
            seeds=self.seeds,
            teacher=folder_sha256(module.teacher_name),
            guidance_scale=module.guidance.scale,
            precision=str(trainer.precision),
        )

    def _record(self, trainer: Trainer, file: ScoreFile, score: Score) -> None:
        if not trainer.is_global_zero:
            return
        file.append(score)
        tell_score(trainer.loggers, score)
