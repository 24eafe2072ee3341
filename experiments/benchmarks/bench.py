"""What this project adds to the time of the networks alone, as ratios measured side by side in one run.

Run as ``make bench``; the table goes to the screen and to ``experiments/benchmarks/results.md``.
"""

from __future__ import annotations

import copy
import functools
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from bsa_lightning.data.datamodule import AudioCapsLatents, LatentBatch, Prepared
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.diffusion.sampling import sample
from bsa_lightning.diffusion.weighting import BSA
from bsa_lightning.distillation.guidance import Outside
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.distillation.plan import Plan
from bsa_lightning.distillation.promotion import RoundPromotion
from bsa_lightning.teachers.base import Conditioning
from bsa_lightning.teachers.folder import load_teacher
from bsa_lightning.teachers.guided import predictor
from bsa_lightning.teachers.unet import UNetDenoiser

RESULTS = Path(__file__).parent / "results.md"
UPDATES, REPEATS, NUM_STEPS, BATCH_SIZE, SCALE = 24, 5, 8, 16, 2.0


class Floor(Callback):
    """After each update of the real thing, the same networks called bare: two teacher forwards, one student step."""

    def __init__(self) -> None:
        self.ratios: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del trainer
        assert isinstance(pl_module, ProgressiveDistillation)
        self.teacher = copy.deepcopy(pl_module.teacher)
        self.student = copy.deepcopy(pl_module.student)
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=0.0)
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: LatentBatch, batch_idx: int
    ) -> None:
        del trainer, pl_module, outputs, batch_idx
        step = time.perf_counter() - self.began
        floor = seconds(lambda: self.bare_step(batch))
        self.ratios.append(step / floor)
        self.began = time.perf_counter()

    def bare_step(self, batch: LatentBatch) -> None:
        """The least that an update can do."""
        z, t = batch.posterior.mean, torch.full((len(batch),), 0.5, dtype=torch.float64)
        with torch.no_grad():
            for _ in range(2):
                self.teacher(z, t, batch.conditioning)
        self.student(z, t, batch.conditioning).x.mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def training_step() -> list[float]:
    """An update, from the end of the last to its own end, over the bare networks."""
    with tempfile.TemporaryDirectory() as folder:
        prepare_folder(Soundscapes(2 * BATCH_SIZE, seed=9), Path(folder) / "latents")
        module = ProgressiveDistillation(
            Plan(2 * NUM_STEPS, NUM_STEPS, UPDATES),
            BSA(),
            Outside(SCALE),
            optimizer=functools.partial(torch.optim.Adam, lr=4e-5),
        )
        floor = Floor()
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=-1,
            enable_model_summary=False, use_distributed_sampler=False, default_root_dir=folder,
            callbacks=[RoundPromotion(), floor],
        )  # fmt: skip
        trainer.fit(module, AudioCapsLatents(Prepared(f"{folder}/latents"), batch_size=BATCH_SIZE))
    return floor.ratios[2:]


@torch.no_grad()
def sampling() -> tuple[list[float], list[float]]:
    """Our loop over the bare forwards, and over diffusers' own loop, with the same network, steps and guidance."""
    from diffusers import DDIMScheduler

    teacher = load_teacher("tiny")
    denoiser = teacher.denoiser.eval()
    assert isinstance(denoiser, UNetDenoiser)
    unet = denoiser.unet
    cond, null = teacher.conditioner([Soundscapes(1).captions(0)[0]] * BATCH_SIZE), teacher.conditioner.null()
    both = Conditioning.cat([cond, null.repeat(BATCH_SIZE)])
    noise = torch.randn(BATCH_SIZE, *teacher.codec.latent_shape)
    scheduler = DDIMScheduler.from_pretrained(teacher.folder / "scheduler")
    scheduler.set_timesteps(NUM_STEPS)
    states = {"encoder_hidden_states": both.tensors["states"], "encoder_attention_mask": both.masks["states"]}

    def ours() -> None:
        denoise = predictor(denoiser, cond, null=null, guidance_scale=SCALE)
        sample(denoise=denoise, schedule=denoiser.schedule, noise=noise, num_steps=NUM_STEPS)

    def bare() -> None:
        for timestep in scheduler.timesteps:
            unet(torch.cat([noise, noise]), timestep, **states)

    def diffusers_loop() -> None:
        z = noise
        for timestep in scheduler.timesteps:
            guided, free = unet(torch.cat([z, z]), timestep, **states).sample.chunk(2)
            z = scheduler.step(free + SCALE * (guided - free), timestep, z).prev_sample

    bare()
    times = [(seconds(ours), seconds(bare), seconds(diffusers_loop)) for _ in range(REPEATS)]
    return [a / b for a, b, _ in times], [a / c for a, _, c in times]


def row(name: str, ratios: list[float], floor: str) -> str:
    """Median and range."""
    return f"| {name} | {statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} | {floor} |"


def main() -> None:
    """Measures, prints, and keeps the table."""
    warnings.filterwarnings("ignore")
    over_floor, over_diffusers = sampling()
    lines = [
        "# Benchmarks",
        "",
        f"`make bench` on {os.cpu_count()} cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}),"
        f" torch {torch.__version__}: the built-in teacher, batches of {BATCH_SIZE}, float32.",
        "",
        "| what | ratio (median) | range | over |",
        "|---|---|---|---|",
        row(
            "training step", training_step(), "two teacher forwards, a student forward and backward, Adam, called bare"
        ),
        row(f"sampling, {NUM_STEPS} guided steps", over_floor, "the network's forwards alone"),
        row(f"sampling, {NUM_STEPS} guided steps", over_diffusers, "diffusers' DDIM loop"),
    ]
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
