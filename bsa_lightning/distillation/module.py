"""Distillation in rounds (Liu et al., Algorithm 1), by a method of ``methods.py``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsa_lightning.data.datamodule import LatentBatch
from bsa_lightning.diffusion.losses import Errors, distillation_loss, squared_error
from bsa_lightning.diffusion.weighting import Weighting
from bsa_lightning.distillation import adapters
from bsa_lightning.distillation.draws import Draws, draw, seed_networks
from bsa_lightning.distillation.guidance_modes import GuidanceMode
from bsa_lightning.distillation.methods import Method, Progressive
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.distillation.rounds_module import RoundsModule
from bsa_lightning.distillation.student import save_student
from bsa_lightning.distillation.teachers import FirstTeacher, TeacherReference, drop_teacher, restore_teacher
from bsa_lightning.distillation.validation import ValidationErrors
from bsa_lightning.generation.from_noise import generate_latents
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import folder_sha256, is_shape_alone, load_denoiser, read_sampling
from bsa_lightning.models.lora import LoRA
from bsa_lightning.training.ema import EMA, copy_weights
from bsa_lightning.training.latent_module import NetworkOptions, OptimizerFactory, check_training
from bsa_lightning.training.sharding import is_sharded


class ProgressiveDistillation(RoundsModule):
    """The module that trains the students of a ladder, round by round.

    It holds the teacher and the student of the current round.

    Args:
        plan: the rounds: how many steps each student samples in, and how many updates it gets.
        weighting: the weight w(SNR) of the squared error in x.
        guidance: the mode of guidance, which says where the guidance of the first teacher goes.
        teacher: the first teacher: a model folder, a hub id, or "tiny" or "tiny-flow", which are built in.
        optimizer: makes the optimizer of the student's parameters, anew in each round; the learning rate falls linearly
            to zero over the updates of a round, or over the last fifth of them if the plan has ``patience`` or
            ``most_updates``.
        ema_decay: the decay of the moving average of the student that a round ends with, between 0 and 1; ``None`` ends
            a round with the last weights.
        seed: the seed of noise, times and caption dropout, at least 0.
        networks: the options of teacher and student, such as compilation; ``None`` is ``NetworkOptions()``.
        method: the method of distillation; ``None`` is ``Progressive()``.
        adapter: the low-rank adapter to train in place of the weights of the student, which then shares its teacher's
            weights in memory; ``None`` trains all weights.
    """

    def __init__(
        self,
        plan: Plan,
        weighting: Weighting,
        guidance: GuidanceMode,
        teacher: str = "tiny",
        optimizer: OptimizerFactory = torch.optim.Adam,
        ema_decay: float | None = None,
        seed: int = 0,
        networks: NetworkOptions | None = None,
        method: Method | None = None,
        adapter: LoRA | None = None,
    ) -> None:
        networks = NetworkOptions() if networks is None else networks
        super().__init__(teacher, compiled=networks.compile, plan=plan, optimizer=optimizer)
        adapters.check(adapter, networks)
        self.method = Progressive() if method is None else method
        self.method.check(ema_decay=ema_decay)
        check_training(optimizer, seed=seed, ema_decay=ema_decay)
        self.weighting = weighting
        self.guidance = guidance
        self.seed = seed
        self.teacher_dtype = networks.dtype
        self.adapter = adapter
        self.teacher = load_denoiser(teacher, dtype=self.teacher_dtype).requires_grad_(False).eval()
        if not is_shape_alone(teacher):
            guidance.check_teacher(teacher, read_sampling(teacher))
        self.student = adapters.make_student(adapter, self.teacher, guidance, seed, self._untrained_student).train()
        self.gradient_checkpointing = networks.gradient_checkpointing
        if networks.gradient_checkpointing:
            self.student.enable_gradient_checkpointing()
        self.ema = EMA(self.student, ema_decay, shared=self.teacher.parameters()) if ema_decay is not None else None
        plan.check_schedule(self.teacher.schedule)
        plan.check_weighting(weighting, self.teacher.schedule, partial(self.method.times, self.teacher.schedule, plan))
        self._reference = TeacherReference("", None, "")
        self._resumed_at: int | None = None
        self._errors = ValidationErrors()
        self._first = FirstTeacher(self._load_first_teacher)

    @property
    def learner(self) -> Denoiser:
        return self.student

    @property
    def finished_student(self) -> Denoiser:
        """The network that a round ends with: the moving average if there is one, else the student."""
        if self.ema is None:
            return self.student
        average: Denoiser = self.ema.average  # type: ignore[assignment]
        return average

    @property
    def networks(self) -> list[Denoiser]:
        return [self.student, self.teacher, self.finished_student]

    @property
    def run_folder(self) -> Path:
        return Path(self.trainer.default_root_dir)

    def setup(self, stage: str) -> None:  # noqa: ARG002
        first = folder_sha256(self.teacher_name)
        self._reference = TeacherReference(first, None, first)
        adapters.check_strategy(self.adapter, self.trainer.strategy)
        self.check_data()

    def shared_weights(self, network: Denoiser) -> set[str]:
        return adapters.shared(network, self.teacher)

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        draws = self._draw(batch, self.global_step, batch_idx % self.trainer.accumulate_grad_batches)
        seed_networks(draws.seed, self.device)
        conditioning = batch.conditioning
        if self.guidance.caption_dropout:
            conditioning = conditioning.where(draws.keep_caption, self.student.null_beside(self._null(), conditioning))
        loss = self._errors_of(self.student, batch, draws, conditioning).loss()
        self.log("train/loss", loss, prog_bar=True)
        # As tensors on the CPU: Lightning would move numbers to the device, and wait for it.
        place = {"round": self.round + 1, "num_steps": self.current_round.num_steps}
        self.log_dict({name: torch.tensor(float(number)) for name, number in place.items()})
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Measures the distillation error with fixed draws, and how far final latents are from the first teacher's."""
        draws = self._draw(batch, -1, batch_idx)
        errors = self._errors_of(self.finished_student, batch, draws, batch.conditioning)
        sampled = partial(generate_latents, conditioning=batch.conditioning, null=self._null(), noise=draws.eps)
        num_steps, scale = self.current_round.num_steps, self.guidance.student_scale
        final = sampled(denoiser=self.finished_student, num_steps=num_steps, guidance_scale=scale)
        as_first = partial(sampled, num_steps=self.plan.start_steps, guidance_scale=self.guidance.scale)
        first = self._first.final(draws.eps, batch.conditioning, lambda teacher: as_first(denoiser=teacher))
        distance = squared_error(final, first.to(self.device))
        self._errors.update(errors, distance=distance, counts=batch.counts)
        if self.plan.is_adaptive:
            self.clip_errors.update(batch.index, distance, batch.counts)

    def on_validation_epoch_end(self) -> None:
        self.log("val/num_steps", float(self.current_round.num_steps), batch_size=1)
        for name, value in self._errors.compute().items():
            self.log(name, value, batch_size=1, sync_dist=True)

    def test_step(self, batch: object) -> None:
        """Does nothing: the callback ``Scoring`` scores all systems when a test starts."""
        # Lightning runs no hook of a test without a batch, so that the data module gives it one. The batches cannot be
        # the (system, seed) pairs to score: Lightning takes them from the data module alone, which does not know the
        # systems, and by default shares them out among the ranks, where each pair needs all ranks.

    def on_validation_end(self) -> None:
        self._first.release()

    def finish_round(self) -> Path:
        """Writes the student of the current round and returns its folder; must be called on every rank.

        Raises:
            UserError: if a weight is not finite, or training has changed no weight.
        """
        folder = self.run_folder / "rounds" / self.current_round.folder
        if self.trainer.strategy.broadcast(self.global_step == self._resumed_at and folder.is_dir()):
            return folder  # it was written before the run was stopped, after the same updates
        first = self.trainer.is_global_zero
        student = adapters.unadapted(self.adapter, self.finished_student, self._untrained_student, keep=first)
        self.refuse_broken(student if first else None)
        # A teacher in bfloat16 is rounded, and the weights of a sharded one are not all on this process.
        is_comparable = self.teacher_dtype is torch.float32 and not is_sharded(self.finished_student)
        self.refuse_unchanged(student, self._start_of_round() if is_comparable else None)
        if first:
            save_student(
                student,
                folder,
                round_=self.current_round,
                teacher=self.teacher_name,
                method=self.method,
                weighting=self.weighting,
                guidance=self.guidance,
                updates=self.updates_in_round,
                budget=self.budget.record(),
                data_fingerprint=self.data.fingerprint,
                sampled_latents=self.data.sampled_latents,
                adapted=None if self.adapter is None else self.finished_student,
                merged=None if (earlier := self._reference.student) is None else self.run_folder / earlier,
            )
        self.trainer.strategy.barrier("student folder")
        return folder

    def promote(self, folder: Path) -> None:
        """Starts the next round from the student saved in ``folder``, its teacher unless the method keeps the first."""
        if not self.method.keeps_teacher:
            self.guidance.prepare(self.teacher)
            seeds = self.seed, self.round + 1
            adapters.hand_on(self.adapter, self.finished_student, teacher=self.teacher, seeds=seeds)  # eta <- theta
            student = str(folder.relative_to(self.run_folder))
            self._reference = replace(self._reference, student=student, sha256=folder_sha256(folder))
        copy_weights(source=self.finished_student, target=self.student)  # theta <- eta
        self.begin_next_round()  # N <- N/2

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        drop_teacher(checkpoint, self._reference, adapters.shared(self, self.teacher))
        checkpoint["clips"] = self.data.fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed_at = checkpoint["global_step"]
        if self.trainer.state.fn == "fit":
            self.data.refuse_other_clips(checkpoint["clips"])
        super().on_load_checkpoint(checkpoint)
        self._reference = TeacherReference(**checkpoint["teacher"])
        teacher = self._reference.load(first=self.teacher_name, run_folder=self.run_folder, dtype=self.teacher_dtype)
        restore_teacher(checkpoint, teacher)
        if self.adapter is None:
            self.teacher = self.set_up(teacher.requires_grad_(False)).to(self.device).eval()
        else:
            adapters.restore_shared(checkpoint, self, self.teacher, teacher)

    def _errors_of(self, student: Denoiser, batch: LatentBatch, draws: Draws, conditioning: Conditioning) -> Errors:
        """Returns the errors of Algorithm 1 for a batch, with the method, teacher and guidance of the current round."""
        scale = self.guidance.target_scale(0 if self.method.keeps_teacher else self.round, draws.guidance)
        predictors = self.method.predictors(
            self.teacher, self.finished_student, student, conditioning=conditioning, null=self._null(), scale=scale
        )
        return distillation_loss(
            **predictors._asdict(),
            x=batch.posterior.sample(draws.posterior_noise),
            eps=draws.eps,
            uniform=draws.uniform,
            num_steps=self.current_round.num_steps,
            factor=self.method.factor(self.plan, self.current_round),
            schedule=self.teacher.schedule,
            weighting=self.weighting,
            step_times=self.method.step_times,
        )

    def _start_of_round(self) -> Denoiser:
        """Returns a network with the weights that the student of the current round started as."""
        last = self.run_folder / "rounds" / self.plan.rounds[self.round - 1].folder
        is_first = self.round == 0 or not self.method.keeps_teacher
        return self.teacher if is_first else load_denoiser(last).to(self.device)

    def _draw(self, batch: LatentBatch, step: int, micro_batch: int) -> Draws:
        return draw(
            seed=self.seed,
            step=step,
            micro_batch=micro_batch,
            rank=self.global_rank,
            latents=batch.posterior.mean,
            caption_dropout=self.guidance.caption_dropout,
        )

    def _untrained_student(self) -> Denoiser:
        student = load_denoiser(self.teacher_name)
        self.guidance.prepare(student)
        return student

    def _load_first_teacher(self) -> Denoiser:
        first = load_denoiser(self.teacher_name, dtype=self.teacher_dtype).requires_grad_(False)
        return self.set_up(first).to(self.device).eval()
