"""The whole way from a teacher and captions to a student: latents, ladder, scores, export, report."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from bsa_lightning.cli.export import export
from bsa_lightning.cli.in_process import run_in_process
from bsa_lightning.cli.ladder import default_rate, ladder_config, last_student, own_guidance, prepared
from bsa_lightning.common.errors import StoppedError, UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.common.ranges import check_seed
from bsa_lightning.data.datamodule import Prepared
from bsa_lightning.data.prepare import is_prepared, prepare_folder
from bsa_lightning.data.prepared_sound import PreparedSound
from bsa_lightning.data.teacher_samples import TeacherSamples, distinct_captions, hold_out
from bsa_lightning.diffusion.weighting import Weighting
from bsa_lightning.distillation.guidance_modes import GuidanceMode
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.models.loading import read_sampling, without_weights
from bsa_lightning.models.provenance import INDEX
from bsa_lightning.models.registry import family_of, resolve_folder
from bsa_lightning.models.sampling_settings import SamplingSettings
from bsa_lightning.models.vocabulary import warn_of_unknown_words
from bsa_lightning.reporting.report import PAGE, report
from bsa_lightning.training.run_files import CONFIG
from bsa_lightning.training.run_folder import RunFolder

STUDENT = "student"
"""The subfolder of the run for the last student as a complete model folder."""
NUM_LATENTS = 256
"""The least number of latents to train on that ``latents_per_caption=None`` makes."""
NUM_SCORED = 48
"""The number of clips that scores are computed from, and the least number of clips of the teacher's own sound."""
MOST_HELD_OUT = 128
"""The most captions that are held out."""
NUM_VALIDATED = 32
"""The most clips that are validated on."""
BATCH_SIZE = 16
"""The number of clips of a batch on one device, unless the settings say otherwise."""
SEEDS = (0, 1, 2)
"""The sampling seeds of the scores."""


@dataclass(frozen=True)
class CaptionsAlone:
    """A distillation without recorded sound; each step goes on where an earlier call was stopped.

    Args:
        teacher: the model folder of the teacher, a hub id, or "tiny".
        captions: the file of captions, of which a tenth (1 to 128) are held out for validation and scores.
        out: the folder of the run.
        steps: the number of steps of the teacher and of the last student.
        updates: the number of updates of each round, at least 1; ``None`` is 60 on a CPU and 1000 on a GPU.
        weighting: the weighting of the loss; ``None`` is BSA with gamma = 5.
        guidance: the mode of guidance; ``None`` bakes in the scale that the teacher is made for.
        latents_per_caption: the number of latents of each caption; ``None`` is as many as make 256 latents.
        scoring: the settings of the scoring; ``None`` scores 48 clips with three seeds against the teacher's own sound.
        seed: the seed of order, noise, times and caption dropout; latents are the same for all seeds.
        settings: further settings of ``lightning fit``, by dotted name.
    """

    teacher: str
    captions: Path
    out: Path
    steps: tuple[int, int]
    updates: int | None = None
    weighting: Weighting | None = None
    guidance: GuidanceMode | None = None
    latents_per_caption: int | None = None
    scoring: ScoringSettings | None = None
    seed: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)

    def run(self) -> Path:
        """Distils, scores, exports and reports, and returns the folder of the student.

        Raises:
            UserError: if a setting is wrong; nothing is sampled then.
        """
        check_seed("seed", self.seed)
        train, held_out = self._clips()
        config = self._config(prepared(train, self.teacher), prepared(held_out, self.teacher))
        self._refuse_other_latents(config)
        self._check_export()
        self._check(config)
        if self.is_finished:
            return self.out / STUDENT
        for name, clips in (("train on", train), ("score against", held_out)):
            self._sample(clips, name)
        try:
            run_in_process("fit", config, self._fit_settings)
        except StoppedError as error:
            text = f"{str(error).partition(';')[0]}; the same command goes on from there"
            raise StoppedError(text, error.exit_code) from error
        last_student(self.out)
        run_in_process("test", RunFolder(self.out).config() | {"run": str(self.out)}, None)
        with redirect_stdout(StringIO()):  # the table and the paths, which the command prints
            if not (self.out / STUDENT).is_dir():
                export(self.out, self.out / STUDENT)
            report([self.out])
        return self.out / STUDENT

    def _check_export(self) -> None:
        """Refuses a mode of guidance in which the pipeline of the teacher cannot sample the exported student."""
        index, mode = resolve_folder(self.teacher) / INDEX, self._guidance
        if index.is_file():
            sampling = SamplingSettings(self.steps[1], mode.name, mode.scale, mode.range)
            family_of(self.teacher).student_index(read_json(index), sampling)

    def _check(self, config: Mapping[str, Any]) -> None:
        """Builds everything but the networks' weights, which fails where a setting is wrong."""
        logging.disable(logging.INFO)  # what Lightning says of the machine, which it says again
        try:
            with without_weights():
                run_in_process("fit", config, self._fit_settings, only_check=True)
        finally:
            logging.disable(logging.NOTSET)

    @property
    def is_finished(self) -> bool:
        """Whether an earlier call has done all of it."""
        return not self._is_replaced and (self.out / STUDENT).is_dir() and (self.out / "report" / PAGE).is_file()

    @property
    def _is_replaced(self) -> bool:
        return self.settings.get("overwrite") in (True, "true")

    @property
    def _fit_settings(self) -> dict[str, object]:
        precision = {"trainer.precision": "bf16-mixed"} if torch.cuda.is_available() else {}
        resume = {} if self._is_replaced else {"ckpt_path": "last"}
        return {**precision, **resume, **self.settings}

    @property
    def _num_devices(self) -> int:
        """The number of processes: that of the trainer if it is set, else all GPUs, else one."""
        devices = str(self.settings.get("trainer.devices", "auto"))
        if not devices.isdigit():
            devices = str(torch.cuda.device_count())
        return max(1, int(devices))

    def _clips(self) -> tuple[TeacherSamples, TeacherSamples]:
        """Returns the clips to train on, and those to validate on and to score against."""
        captions = distinct_captions(self.captions)
        warn_of_unknown_words(self.teacher, captions)
        num_held_out = min(MOST_HELD_OUT, max(1, len(captions) // 10))
        train, test = hold_out(captions, num_held_out)
        if not train:
            raise UserError(
                f"captions is {self.captions}, where no caption is left to train on when {num_held_out} are held out to"
                " score with; write at least two that differ in more than case and punctuation"
            )
        count = self.latents_per_caption
        count = math.ceil(NUM_LATENTS / len(train)) if count is None else count
        own, guidance = read_sampling(self.teacher), self._guidance
        settings: dict[str, Any] = {
            "file": Path(self.captions).absolute(),
            "teacher": self.teacher,
            "num_steps": self.steps[0],
            "guidance_scale": None if own.guidance == "baked" else guidance.scale,
            "num_held_out": num_held_out,
        }
        clips = TeacherSamples(**settings, latents_per_caption=count)
        batch = self.settings.get("data.batch_size", BATCH_SIZE)
        if isinstance(batch, int) and len(clips) < batch * self._num_devices:
            raise UserError(
                f"{len(train)} captions with {count} latents each are fewer than one batch of {batch} on each of"
                f" {self._num_devices} devices; raise latents_per_caption, or lower the batch size"
            )
        return clips, TeacherSamples(**settings, latents_per_caption=math.ceil(NUM_SCORED / len(test)), held_out=True)

    @property
    def _guidance(self) -> GuidanceMode:
        return own_guidance(self.teacher) if self.guidance is None else self.guidance

    def _config(self, train: Prepared, held_out: Prepared) -> dict[str, Any]:
        updates = (1000 if torch.cuda.is_available() else 60) if self.updates is None else self.updates
        scoring = ScoringSettings(num_captions=NUM_SCORED, seeds=SEEDS) if self.scoring is None else self.scoring
        if scoring.clips is None:
            scoring = replace(scoring, clips=PreparedSound(Path(held_out.folder), self.teacher))
        config = ladder_config(
            self.teacher,
            run=self.out,
            plan=Plan(*self.steps, updates=updates),
            train=train,
            val=held_out,
            weighting=self.weighting,
            guidance=self._guidance,
            learning_rate=default_rate(self.teacher),
            scoring=scoring,
            seed=self.seed,
        )
        config["data"]["init_args"] |= {"batch_size": BATCH_SIZE, "num_val_clips": NUM_VALIDATED}
        return config

    def _refuse_other_latents(self, config: Mapping[str, Any]) -> None:
        """Refuses to go on with a run of other captions, or of latents that were sampled otherwise."""
        recorded = RunFolder(self.out).config().get("data", {}).get("init_args", {}).get("train", {})
        ours = config["data"]["init_args"]["train"]
        if not self._is_replaced and recorded and Path(recorded["folder"]).name != Path(ours["folder"]).name:
            raise UserError(
                f"out is {self.out}, a run of other captions or of latents that were sampled otherwise; name another"
                f" folder, or give what {CONFIG} there holds"
            )

    def _sample(self, clips: TeacherSamples, purpose: str) -> None:
        """Samples the latents on all devices, unless they are there."""
        store = prepared(clips, self.teacher)
        if not is_prepared(Path(store.folder)):
            scale = clips.sampling["guidance_scale"]
            print(f"sampling {len(clips)} latents to {purpose}: {self.steps[0]} steps, guidance {scale:g}", flush=True)
            prepare_folder(clips, Path(store.folder), self.teacher, devices=self._num_devices)
