"""An update, its memory and its waiting, over the same networks called bare."""

from __future__ import annotations

import copy
import functools
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import SimpleProfiler

from bsa_lightning.data.datamodule import AudioCapsLatents, LatentBatch, Prepared
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.diffusion.weighting import BSA
from bsa_lightning.distillation.cost import PeakMemory
from bsa_lightning.distillation.guidance_modes import Baked, GuidanceMode, Outside
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.training.bad_updates import BadUpdates
from bsa_lightning.training.ema import EMA
from experiments.benchmarks.measure import Row, seconds

UPDATES, SKIPPED, NUM_STEPS, BATCH_SIZE, SCALE = 244, 2, 8, 16, 2.0
BATCHES = 61
"""Of an epoch. Each ends with Lightning's own work, so that epochs of few batches would measure that."""
FLOOR = "two teacher forwards, a student forward and backward, Adam, called bare"


class Floor(Callback):
    """Before and after each update of the real thing, the same networks called bare."""

    def __init__(self) -> None:
        self.ratios: list[float] = []
        self.bare: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del trainer
        assert isinstance(pl_module, ProgressiveDistillation)
        self.module = pl_module
        self.teacher = copy.deepcopy(pl_module.teacher)
        self.student = copy.deepcopy(pl_module.student)
        self.ema = EMA(self.student, 0.9) if pl_module.ema is not None else None
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=0.0)
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: LatentBatch, batch_idx: int
    ) -> None:
        del trainer, pl_module, outputs, batch_idx
        step, before = time.perf_counter() - self.began, self.bare
        self.bare = seconds(lambda: self.bare_step(batch))
        if before is not None:
            self.ratios.append(2 * step / (before + self.bare))
        self.began = time.perf_counter()

    def bare_step(self, batch: LatentBatch) -> None:
        """The least that an update can do."""
        bare_step(self.module, self.teacher, self.student, batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.student)


def bare_step(
    module: ProgressiveDistillation, teacher: Denoiser, student: Denoiser, batch: LatentBatch
) -> torch.Tensor:
    """The networks of an update, called bare; the teacher of a guided first round sees every clip twice."""
    z, t, told = batch.posterior.mean, torch.full((len(batch),), 0.5, dtype=torch.float64), batch.conditioning
    twice = module.guidance.target_scale(module.round, torch.zeros(1)) != 1.0
    scales = torch.ones(len(batch), device=z.device)
    with torch.no_grad():
        for _ in range(2):
            if teacher.takes_guidance:
                teacher(z, t, told, scales)
            elif twice:
                teacher(torch.cat([z, z]), torch.cat([t, t]), Conditioning.cat([told, told]))
            else:
                teacher(z, t, told)
    return student(z, t, told, scales if student.takes_guidance else None).x.mean()


class FloorOfMemory(Floor):
    """Instead of seconds, the most bytes that live at once; what lives between updates counts for both."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        del trainer, pl_module, batch, batch_idx
        self.memory = PeakMemory()
        self.memory.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: LatentBatch, batch_idx: int
    ) -> None:
        del outputs, batch_idx
        self.memory.__exit__(None, None, None)
        with PeakMemory() as bare:
            self.bare_step(batch)
        moments = sum(
            tensor.nbytes
            for state in trainer.optimizers[0].state.values()
            for tensor in state.values()
            if isinstance(tensor, torch.Tensor)
        )
        lasting = moments + sum(parameter.nbytes for parameter in pl_module.parameters())
        self.ratios.append((lasting + self.memory.peak) / (lasting + bare.peak))


class Silent(SimpleProfiler):
    """Tells its numbers to whoever asks, and nobody else."""

    def describe(self) -> None:
        pass


def fit(
    latents: Path, guidance: GuidanceMode, callback: Callback, *, ema_decay: float | None = None, updates: int = UPDATES
) -> SimpleProfiler:
    """A round of the built-in teacher, with what ``lightning fit`` adds to it."""
    profiler = Silent()
    module = ProgressiveDistillation(
        Plan(2 * NUM_STEPS, NUM_STEPS, updates),
        BSA(),
        guidance,
        optimizer=functools.partial(torch.optim.Adam, lr=4e-5),
        ema_decay=ema_decay,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=-1,
            enable_model_summary=False, use_distributed_sampler=False, default_root_dir=folder, profiler=profiler,
            callbacks=[BadUpdates(), callback],
        )  # fmt: skip
        trainer.fit(module, AudioCapsLatents(Prepared(str(latents)), batch_size=BATCH_SIZE))
    return profiler


def rows() -> list[Row]:
    """Time, memory and waiting."""
    outside, baked, memory = Floor(), Floor(), FloorOfMemory()
    with tempfile.TemporaryDirectory() as folder:
        latents = Path(folder) / "latents"
        prepare_folder(Soundscapes(BATCHES * BATCH_SIZE, seed=9), latents)
        fit(latents, Outside(SCALE), outside)
        fit(latents, Baked(SCALE), baked, ema_decay=0.99)
        fit(latents, Baked(SCALE), memory, ema_decay=0.99, updates=SKIPPED + 10)
        took = fit(latents, Outside(SCALE), Callback(), updates=BATCHES).recorded_durations
    waits = took["[_TrainingEpochLoop].train_dataloader_next"][SKIPPED:BATCHES]
    shares = [wait / step for wait, step in zip(waits, took["run_training_batch"][SKIPPED:], strict=True)]
    return [
        Row("training step, guidance outside", outside.ratios[SKIPPED:], FLOOR, "1.03"),
        Row("training step, guidance baked in, average", baked.ratios[SKIPPED:], FLOOR + ", average", "1.03"),
        Row("peak memory of a training step", memory.ratios[SKIPPED:], "weights, moments, and the peak of that"),
        Row("waiting for the next batch", shares, "the training step", "0.01"),
    ]
