"""The callback that scores a run: after every round of ``fit``, and in full in ``test``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json, refuse_file, write_json
from bsa_lightning.common.progress import progress
from bsa_lightning.data.clips import Clips
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.evaluation.differences_file import write_student_differences
from bsa_lightning.evaluation.evaluator import Evaluator, Process
from bsa_lightning.evaluation.kept_samples import KeptSamples
from bsa_lightning.evaluation.log_scores import log_samples, log_score, log_table
from bsa_lightning.evaluation.measures import expected_rows, needs_many, too_few_reason
from bsa_lightning.evaluation.paired_differences import FEWEST
from bsa_lightning.evaluation.row_store import save_rows
from bsa_lightning.evaluation.run_systems import RunSystems
from bsa_lightning.evaluation.score_card import refuse_other, run_card
from bsa_lightning.evaluation.scores import Score, ScoreFile
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.evaluation.systems import System
from bsa_lightning.models.base import Codec
from bsa_lightning.models.loading import folder_sha256, load_codec, load_parts
from bsa_lightning.training.latent_module import RoundObserver

_log = logging.getLogger(__name__)

_RATE = 48_000
"""The rate, in Hz, at which the lengths of recordings are counted."""


class Scoring(RoundObserver):
    """Scores a round's student, and the undistilled teacher under DDIM at the same steps, into ``scores.csv``.

    ``fit`` scores with the first seed after every round. ``test`` scores the teacher at every step count, every student
    of the run and its rivals with all seeds, and skips what is scored already.

    Args:
        settings: the settings of the scoring.
    """

    def __init__(self, settings: ScoringSettings) -> None:
        self.settings = settings
        self._evaluator: Evaluator | None = None
        self.has_scored = False

    @property
    def clips(self) -> Clips:
        """The held-out clips."""
        assert self.settings.clips is not None
        return self.settings.clips

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks all that could end the scoring before the training starts; forgets an earlier trainer's evaluator."""
        self._evaluator = None
        if stage == "test":
            self._check_test(pl_module)
        if self.settings.clips is None or stage not in ("fit", "test"):
            return
        if not isinstance(pl_module, ProgressiveDistillation):
            return
        codec = load_codec(pl_module.teacher_name)
        for reason in self.check_clips(codec, read=self.settings.during_fit or stage == "test"):
            if trainer.is_global_zero:
                _log.warning("%s", reason)
        systems = RunSystems(pl_module, self.settings)
        systems.check_renoising()
        for model in self.settings.baselines:
            systems.baseline(model)
        refuse_file(self.settings.cache_folder, setting="cache")
        if stage == "test" or trainer.ckpt_path is not None:
            self._refuse_other(pl_module, self._card(trainer, pl_module))

    def on_round_end(self, trainer: Trainer, pl_module: LightningModule, folder: Path) -> None:
        if self.settings.clips is not None and self.settings.during_fit:
            assert isinstance(pl_module, ProgressiveDistillation)
            systems = RunSystems(pl_module, self.settings).of_round(folder)
            self._score_all(trainer, pl_module, systems, self.settings.seeds[:1])

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.settings.clips is None:
            return
        assert isinstance(pl_module, ProgressiveDistillation)
        systems = RunSystems(pl_module, self.settings).all()
        self._score_all(trainer, pl_module, systems, self.settings.seeds)
        self.has_scored = True
        if self.settings.num_generated < FEWEST:
            return
        path = pl_module.run_folder / "differences.csv"
        # A test that was stopped between the last score and the differences has nothing left to score.
        if self._evaluator is None and not trainer.strategy.broadcast(path.is_file()):
            self._make_evaluator(trainer, pl_module)
        if trainer.is_global_zero and self._evaluator is not None:
            write_student_differences(
                path,
                systems,
                measures=self._evaluator.measures,
                rows_of=lambda system: self._rows_file(pl_module.run_folder, system),
                seed=self.settings.seeds[0],
            )

    def check_clips(self, codec: Codec, *, read: bool = True) -> list[str]:
        """Returns a sentence on each embedding that has too few clips to say much, once the clips can be scored.

        Args:
            codec: the codec of the models that are scored.
            read: whether to read every clip to its end, since a damaged file would end the scoring hours later.

        Raises:
            UserError: if a clip cannot be read, or an embedding measures nothing of so few clips.
        """
        sentences = self._few_clips([(codec.num_samples, codec.sample_rate)] * self.settings.num_generated)
        size = {"sample_rate": codec.sample_rate, "num_samples": codec.num_samples}
        # Clips that cannot be made at this rate and length fail here.
        self.clips.waveform(0, **size, num_channels=codec.num_channels)
        seconds = codec.num_samples / codec.sample_rate
        numbers = range(len(self.clips) if read else 0)
        found = [self.clips.inspect(i, seconds=seconds, num_channels=codec.num_channels) for i in numbers]
        if found and self.clips.recorded(0) is not None:  # these are scored at their own length
            recordings = [(round(each.seconds * _RATE), _RATE) for each in found if each is not None]
            sentences += self._few_clips(recordings, side="reference")
        return sentences

    def _few_clips(self, lengths: Sequence[tuple[int, int]], *, side: str = "") -> list[str]:
        """Returns a sentence on each embedding whose distances need more clips than there are.

        Args:
            lengths: the number of samples of each clip, and its sample rate in Hz.
            side: "reference" for recordings; empty for the clips that are generated.

        Raises:
            UserError: if an embedding measures nothing else.
        """
        sentences: list[str] = []
        for embedding in self.settings.embeddings:
            rows = expected_rows(embedding, lengths)
            reason = too_few_reason(num_clips=len(lengths), num_rows=rows, side=side)
            if reason and needs_many(embedding, paired=True, captions=True):
                raise UserError(f"{embedding.metric} has no value: {reason}")
            if reason and embedding.metric is not None:
                consequence = "is left out" if embedding.is_learnt else "says little"
                sentences.append(f"{embedding.metric} {consequence}: {reason}")
        return sentences

    def _score_all(
        self, trainer: Trainer, module: ProgressiveDistillation, systems: Sequence[System], seeds: Sequence[int]
    ) -> None:
        """Scores every system with every seed, except what ``scores.csv`` has; on every rank alike."""
        file = ScoreFile(module.run_folder / "scores.csv")
        self._claim(trainer, module, file)
        done = trainer.strategy.broadcast(file.keys())
        num_clips = self.settings.num_generated
        todo = [
            (system, seed)
            for seed in seeds
            for system in systems
            if system.row(seed=seed, num_clips=num_clips).key not in done
        ]
        if not todo:
            return
        generator_state = torch.get_rng_state()
        with progress(desc="score", unit="clip", disable=not trainer.is_global_zero) as bar:
            evaluator = self._make_evaluator(trainer, module)
            bar.reset(evaluator.num_samplings(todo) * sum(map(len, evaluator.batches)))  # on the rank that shows it
            if not any(key[0] == "reference" for key in done):
                self._record(trainer, file, evaluator.halves())
            for system, seed in todo:
                bar.set_description(f"score {system.name} seed {seed}")
                is_first = seed == self.settings.seeds[0]
                keep = KeptSamples(
                    module.run_folder, system, self.clips, self.settings.num_samples, evaluator.codec.sample_rate
                )
                num_decoded = keep.num_samples if is_first else 0
                score = evaluator.score(system, seed=seed, on_clip=keep, num_decoded=num_decoded, on_batch=bar.update)
                if is_first and trainer.is_global_zero:  # before the score, which says that all of this is done
                    save_rows(self._rows_file(module.run_folder, system), evaluator.rows)
                self._record(trainer, file, score)
                trainer.strategy.barrier("samples")
                if is_first and trainer.is_global_zero:
                    log_samples(trainer.loggers, system.name, *keep.written())
                    if (system, seed) == todo[0] and all(key[0] == "reference" for key in done):
                        log_samples(trainer.loggers, "reference", *keep.written("reference"))
        torch.set_rng_state(generator_state)
        if trainer.is_global_zero:
            log_table(trainer.loggers, file.rows())

    def _make_evaluator(self, trainer: Trainer, module: ProgressiveDistillation) -> Evaluator:
        """Returns the evaluator, which keeps reference rows, text states and the teacher's samples between rounds."""
        if self._evaluator is None:
            self._evaluator = Evaluator(
                self.settings,
                teacher=load_parts(module.teacher_name),
                full_teacher=RunSystems(module, self.settings).full_teacher,
                process=Process(
                    trainer.global_rank,
                    trainer.world_size,
                    device=module.device,
                    precision=trainer.precision_plugin.forward_context,
                ),
            )
        return self._evaluator

    def _rows_file(self, run_folder: Path, system: System) -> Path:
        """Returns the path of a system's rows for the first seed, which differences are computed from clip by clip."""
        num_clips = self.settings.num_generated
        return run_folder / "rows" / f"{system.name}-seed{self.settings.seeds[0]}-{num_clips}clips.safetensors"

    def _claim(self, trainer: Trainer, module: ProgressiveDistillation, file: ScoreFile) -> None:
        """Writes the card of the scores beside them, and refuses to add to scores with another card."""
        ours = self._card(trainer, module)
        self._refuse_other(module, ours)
        trainer.strategy.barrier("score card")
        if trainer.is_global_zero:
            write_json(file.path.with_suffix(".json"), ours)

    def _check_test(self, pl_module: LightningModule) -> None:
        """Refuses a test that would score nothing.

        Raises:
            UserError: naming the reason.
        """
        if self.settings.clips is None and isinstance(pl_module, ProgressiveDistillation):
            raise UserError("scoring.clips is not set, so that there is nothing to score; name held-out clips")
        if self.settings.clips is not None and not isinstance(pl_module, ProgressiveDistillation):
            raise UserError(
                f"model is {type(pl_module).__name__}, but lightning test scores the students of"
                " ProgressiveDistillation; name the configuration of a distillation"
            )

    def _refuse_other(self, module: ProgressiveDistillation, ours: Mapping[str, Any]) -> None:
        card, scores = (module.run_folder / name for name in ("scores.json", "scores.csv"))
        if card.is_file() and scores.is_file():  # a card without scores is left when scores.csv is deleted
            refuse_other(ours, read_json(card), scores)

    def _card(self, trainer: Trainer, module: ProgressiveDistillation) -> dict[str, Any]:
        return run_card(
            self.settings,
            teacher=folder_sha256(module.teacher_name),
            guidance_scale=module.guidance.scale,
            precision=str(trainer.precision),
        )

    def _record(self, trainer: Trainer, file: ScoreFile, score: Score) -> None:
        if not trainer.is_global_zero:
            return
        file.append(score)
        log_score(trainer.loggers, score)
