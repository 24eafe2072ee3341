"""An update at full size: its seconds, its memory and its share of the card, over the same networks called bare."""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from bsa_lightning.data.datamodule import AudioCapsLatents, LatentBatch, Prepared
from bsa_lightning.diffusion.weighting import BSA
from bsa_lightning.distillation.cost import cost
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, GuidanceMode, Outside
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import without_weights
from bsa_lightning.training.bad_updates import BadUpdates
from bsa_lightning.training.latent_module import NetworkOptions
from experiments.benchmarks.training import bare_step
from experiments.gpu.model_folder import CUDA, DEVICE

MODES: dict[str, GuidanceMode] = {
    "outside": Outside(3.0),
    "baked": Baked(3.0),
    "embedded": Embedded(3.0),
}


class Variant(NamedTuple):
    """A way to train.

    Args:
        model: the name of the teacher.
        mode: the key of the mode of guidance.
        batch_size: the number of clips of an update.
        compiled: whether the networks are compiled.
    """

    model: str
    mode: str
    batch_size: int
    compiled: bool


class Clock(Callback):
    """The seconds of an update and the memory at its peak, over a window of updates after the first ones.

    Args:
        skipped: the number of updates before the window, in which memory is allocated and networks are compiled.
        updates: the number of updates in the window.
    """

    def __init__(self, skipped: int, updates: int) -> None:
        self.skipped, self.updates = skipped, updates
        self.seconds = self.first = float("nan")
        self.peak = 0
        self.idle, self.kernels = float("nan"), list[tuple[str, float]]()
        self.bare: list[float] = []
        self.done = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        del trainer, pl_module, batch, batch_idx
        if self.done == 0:
            self.began = now()
        if self.done == self.skipped:
            if CUDA:
                torch.cuda.reset_peak_memory_stats()
            self.first = now() - self.began
            self.began = now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: LatentBatch, batch_idx: int
    ) -> None:
        del outputs, batch_idx
        self.done += 1
        if self.done < self.skipped + self.updates:
            return
        if self.done == self.skipped + self.updates:
            self.seconds = (now() - self.began) / self.updates
            self.peak = torch.cuda.max_memory_allocated() if CUDA else 0
            self.profiler = torch.profiler.profile(acc_events=True)
            self.profiler.__enter__()
            return
        self.profiler.__exit__(None, None, None)
        self.idle, self.kernels = gaps(self.profiler)
        assert isinstance(pl_module, ProgressiveDistillation)
        run = functools.partial(_bare, trainer, pl_module, batch)
        run()
        self.bare = [timed(run) for _ in range(self.updates)]


def gaps(profiler: torch.profiler.profile) -> tuple[float, list[tuple[str, float]]]:
    """The share of an update in which the device does nothing, and the kinds of kernels by their share of its work."""
    events = [
        e
        for e in profiler.events() or []
        if e.device_type == torch.autograd.DeviceType.CUDA and not e.is_user_annotation
    ]
    if not events:
        return float("nan"), []
    spans = sorted((e.time_range.start, e.time_range.end) for e in events)
    busy, end, longest = 0.0, spans[0][0], []
    for start, stop in spans:
        if start > end:
            longest.append(start - end)
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    kinds: dict[str, float] = {}
    for event in events:
        kinds[event.name[:60]] = kinds.get(event.name[:60], 0.0) + event.time_range.end - event.time_range.start
    largest = sorted(kinds.items(), key=lambda item: -item[1])[:12]
    print("longest gaps, ms:", [round(gap / 1e3, 2) for gap in sorted(longest)[-8:]])
    return 1 - busy / (end - spans[0][0]), [(name, round(us / busy, 4)) for name, us in largest]


def _bare(trainer: Trainer, module: ProgressiveDistillation, batch: LatentBatch) -> None:
    with torch.autocast(DEVICE.type, torch.bfloat16):
        loss = bare_step(module, module.teacher, module.student, batch)
    loss.backward()
    trainer.optimizers[0].step()
    trainer.optimizers[0].zero_grad()


def now() -> float:
    """The time in seconds, when the device has done all it was told to do."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(function: Callable[[], object]) -> float:
    """The seconds of one call."""
    began = now()
    function()
    return now() - began


def train(variant: Variant, folder: Path, latents: Path, updates: int) -> dict[str, Any]:
    """One way to train, and what it is compared with.

    Args:
        variant: the way.
        folder: the model folder of the teacher.
        latents: the folder of prepared latents.
        updates: the number of updates that are measured.
    """
    skipped = 2
    make = functools.partial(
        ProgressiveDistillation,
        Plan(16, 8, skipped + updates + 1),
        BSA(),
        MODES[variant.mode],
        teacher=str(folder),
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-5, fused=CUDA),
    )
    with without_weights():
        planned = cost(
            make(networks=NetworkOptions("bfloat16")),
            batch_size=variant.batch_size,
            precision="bf16-mixed",
            accumulate=1,
        )
    clock = Clock(skipped, updates)
    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(
            accelerator="gpu" if CUDA else "cpu", devices=1, precision="bf16-mixed", logger=False, max_epochs=-1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, default_root_dir=run, callbacks=[BadUpdates(), clock, _NoStudents()],
        )  # fmt: skip
        module = make(networks=NetworkOptions("bfloat16", compile=variant.compiled))
        store = Prepared(str(latents))
        trainer.fit(module, AudioCapsLatents(store, batch_size=variant.batch_size))
    flops = planned.teacher_flops + planned.student_flops
    return {
        "what": "training",
        **variant._asdict(),
        "seconds": clock.seconds,
        "first_seconds": clock.first,
        "over_bare": clock.seconds / statistics.median(clock.bare),
        "tflops": flops / clock.seconds / 1e12,
        "peak_gib": clock.peak / 2**30,
        "planned_gib": planned.total / 2**30,
        "idle": clock.idle,
        "kernels": clock.kernels,
    }


class _NoStudents(Callback):
    """Ends the fit before its student is written, which takes seconds that nobody measures."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        assert isinstance(pl_module, ProgressiveDistillation)
        if pl_module.updates_in_round >= pl_module.current_round.updates:
            trainer.should_stop = True
            pl_module.finish_round = Path  # type: ignore[method-assign]
