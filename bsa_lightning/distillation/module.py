"""Progressive distillation (Liu et al., Algorithm 1): one DDIM step learns what the teacher does in two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from bsa_lightning.data.datamodule import LatentBatch
from bsa_lightning.diffusion.process import add_noise
from bsa_lightning.diffusion.sampling import sample
from bsa_lightning.diffusion.target import distillation_target
from bsa_lightning.diffusion.weighting import Weighting, weighted_mse
from bsa_lightning.distillation import checkpoint
from bsa_lightning.distillation.draws import Draws, draw, seed_networks
from bsa_lightning.distillation.ema import EMA, copy_weights
from bsa_lightning.distillation.first_teacher import FirstTeacher
from bsa_lightning.distillation.guidance import Guidance
from bsa_lightning.distillation.latent_module import LatentModule, OptimizerFactory, check_training
from bsa_lightning.distillation.plan import Plan, Round
from bsa_lightning.distillation.sharding import unsharded
from bsa_lightning.distillation.student import save_student
from bsa_lightning.distillation.validation import ValidationErrors
from bsa_lightning.errors import UserError
from bsa_lightning.teachers.base import Conditioning, Denoiser
from bsa_lightning.teachers.folder import folder_sha256, load_denoiser, read_sampling
from bsa_lightning.teachers.guided import predictor


class ProgressiveDistillation(LatentModule):
    """Teacher and student of one round, and the step from a round to the next.

    Args:
        plan: the ladder of rounds.
        weighting: of the x-space error, as a function of SNR.
        guidance: where the guidance of the first teacher goes.
        teacher: the model folder of the first teacher, or "tiny" for the built-in one.
        optimizer: of the student's parameters, made anew each round; its rate falls linearly to zero in a round.
        ema_decay: of the average of the student that a round ends with, between 0 and 1; None ends with the last
            weights.
        caption_dropout: share of captions replaced by none, from 0 to 1, where the mode of guidance needs the null
            branch.
        seed: of noise, times and dropout; at least 0.
        teacher_dtype: of the teacher's weights; bfloat16 halves their memory.
        gradient_checkpointing: whether the student computes activations anew in the backward pass, which saves memory.
        compile: whether torch.compile makes faster code of the networks, which takes minutes at the start.
    """

    round: Tensor
    round_start: Tensor

    def __init__(
        self,
        plan: Plan,
        weighting: Weighting,
        guidance: Guidance,
        teacher: str = "tiny",
        optimizer: OptimizerFactory = torch.optim.Adam,
        ema_decay: float | None = None,
        caption_dropout: float = 0.1,
        seed: int = 0,
        teacher_dtype: Literal["float32", "bfloat16"] = "float32",
        gradient_checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(teacher, compiled=compile)
        if teacher_dtype not in ("float32", "bfloat16"):
            raise UserError(f"teacher_dtype is {teacher_dtype!r}, but must be float32 or bfloat16")
        check_training(optimizer, caption_dropout=caption_dropout, seed=seed)
        self.plan = plan
        self.weighting = weighting
        self.guidance = guidance
        self.optimizer = optimizer
        self.caption_dropout = caption_dropout
        self.seed = seed
        self.teacher_dtype = getattr(torch, teacher_dtype)
        self.student = self._untrained_student().train()
        self.teacher = load_denoiser(teacher, dtype=self.teacher_dtype).requires_grad_(False).eval()
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            self.student.enable_gradient_checkpointing()
        self.ema = EMA(self.student, ema_decay) if ema_decay is not None else None
        self.register_buffer("round", torch.tensor(0))
        self.register_buffer("round_start", torch.tensor(0))
        plan.check_schedule(self.teacher.schedule)
        plan.check_weighting(weighting, self.teacher.schedule)
        self._reference = checkpoint.TeacherReference("", None, "")
        self._resumed_at: int | None = None
        self._errors = ValidationErrors()
        self._first = FirstTeacher(self._load_first_teacher)

    @property
    def current_round(self) -> Round:
        """The round that is trained now."""
        return self.plan.rounds[int(self.round)]

    @property
    def is_last_round(self) -> bool:
        return int(self.round) == len(self.plan.rounds) - 1

    @property
    def updates_in_round(self) -> int:
        """Optimizer steps since the round began."""
        return self.global_step - int(self.round_start)

    @property
    def learner(self) -> Denoiser:
        return self.student

    @property
    def finished_student(self) -> Denoiser:
        """What a round hands on: the average where there is one, else the student."""
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

    def setup(self, stage: str) -> None:
        del stage
        first = folder_sha256(self.teacher_name)
        self._reference = checkpoint.TeacherReference(first, None, first)
        self.guidance.check_teacher(self.teacher_name, read_sampling(self.teacher_name).guidance)
        self.check_data()

    def on_fit_start(self) -> None:
        from bsa_lightning.distillation.promotion import RoundPromotion

        if not any(isinstance(callback, RoundPromotion) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise UserError("trainer.callbacks has no RoundPromotion, so that no round would ever end; add it")

    def train(self, mode: bool = True) -> ProgressiveDistillation:
        """The teacher is never in training mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.student.parameters())
        updates = self.current_round.updates
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / updates))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        draws = self._draw(batch, self.global_step, batch_idx % self.trainer.accumulate_grad_batches)
        seed_networks(draws.seed, self.device)
        conditioning = batch.conditioning
        if self.guidance.drops_captions:
            conditioning = conditioning.where(draws.keep_caption, self._null())
        t, student_x, target = self._student_and_target(batch, draws, conditioning, self.student)
        loss = weighted_mse(x=student_x, target=target, weight=self.weighting(self.student.schedule.snr(t)))
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({"round": float(self.round + 1), "num_steps": float(self.current_round.num_steps)})
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Distillation error with fixed draws, and the distance of final latents from the first teacher's."""
        draws = self._draw(batch, -1, batch_idx)
        t, student_x, target = self._student_and_target(batch, draws, batch.conditioning, self.finished_student)
        error = (student_x - target).square().flatten(1).mean(1)
        snr = self.student.schedule.snr(t)
        num_steps, scale = self.current_round.num_steps, self.guidance.student_scale
        final = self._sample(self.finished_student, batch.conditioning, draws.eps, num_steps, scale)
        first = self._first.final(
            draws.eps,
            batch.conditioning,
            lambda teacher: self._sample(
                teacher, batch.conditioning, draws.eps, self.plan.start_steps, self.guidance.scale
            ),
        )
        distance = (final - first.to(self.device)).square().flatten(1).mean(1)
        weight = self.weighting(snr).float()
        self._errors.update(weight=weight, distance=distance, error=error, snr=snr, counts=batch.counts)

    def on_validation_epoch_end(self) -> None:
        self.log("val/num_steps", float(self.current_round.num_steps), batch_size=1)
        for name, value in self._errors.compute().items():
            self.log(name, value, batch_size=1, sync_dist=True)

    def test_step(self, batch: object) -> None:
        """Nothing: ``Scoring`` walks clips of its own when a test starts."""

    def on_validation_end(self) -> None:
        self._first.release()

    def finish_round(self) -> Path:
        """Writes the student's folder; on every rank, since all wait for it."""
        folder = self.run_folder / "rounds" / self.current_round.folder
        if self.trainer.strategy.broadcast(self.global_step == self._resumed_at and folder.is_dir()):
            return folder  # written before the run was stopped, by the very updates that the checkpoint holds
        student = unsharded(self.finished_student, self._untrained_student, keep=self.trainer.is_global_zero)
        self.refuse_broken(student if self.trainer.is_global_zero else None)
        # A teacher in bfloat16 is rounded, and one that is spread over devices is in parts.
        is_comparable = self.teacher_dtype is torch.float32 and student is self.finished_student
        self.refuse_unchanged(student, self.teacher if is_comparable else None)
        if self.trainer.is_global_zero:
            save_student(
                student,
                folder,
                round_=self.current_round,
                teacher=self.teacher_name,
                teacher_sha256=folder_sha256(self.teacher_name),
                weighting=self.weighting,
                guidance=self.guidance,
                updates=self.updates_in_round,
                data_fingerprint=self.data.fingerprint,
            )
        self.trainer.strategy.barrier("student folder")
        return folder

    def promote(self, folder: Path) -> None:
        """The student, saved in ``folder``, becomes the teacher; the steps halve; the optimizer starts afresh."""
        self.guidance.prepare(self.teacher)
        copy_weights(source=self.finished_student, target=self.teacher)
        copy_weights(source=self.finished_student, target=self.student)
        self.round += 1
        self.round_start.fill_(self.global_step)
        student = str(folder.relative_to(self.run_folder))
        self._reference = replace(self._reference, student=student, sha256=folder_sha256(folder))
        self.trainer.strategy.setup_optimizers(self.trainer)

    def on_save_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        checkpoint.drop_teacher(checkpoint_, self._reference)
        checkpoint_["clips"] = self.data.fingerprint

    def on_load_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        self._resumed_at = checkpoint_["global_step"]
        if self.trainer.state.fn == "fit" and checkpoint_["clips"] != self.data.fingerprint:
            raise UserError(
                f"data.train is {self.data.train.folder}, which holds other clips than the run was trained on; name the"
                " folder that holds those"
            )
        self._reference = checkpoint.TeacherReference(**checkpoint_["teacher"])
        teacher = self._reference.load(first=self.teacher_name, run_folder=self.run_folder, dtype=self.teacher_dtype)
        checkpoint.restore_teacher(checkpoint_, teacher)
        self.teacher = self.set_up(teacher.requires_grad_(False)).to(self.device).eval()

    def _student_and_target(
        self, batch: LatentBatch, draws: Draws, conditioning: Conditioning, student: Denoiser
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Times (batch,), the student's x-prediction at z_t, and the target x*."""
        num_steps, factor = self.current_round.num_steps, self.plan.factor
        i = (draws.uniform * num_steps).floor() + 1  # uniform on 1..N
        times = [(i - k / factor) / num_steps for k in range(factor + 1)]
        t = times[0]
        alpha, sigma = student.schedule.alpha_sigma(t)
        z_t = add_noise(x=batch.posterior.sample(draws.posterior_noise), eps=draws.eps, alpha=alpha, sigma=sigma)
        scale = self.guidance.target_scale(int(self.round), draws.guidance)
        with torch.no_grad():
            teacher = predictor(self.teacher, conditioning, null=self._null(), guidance_scale=scale)
            target = distillation_target(teacher=teacher, schedule=self.teacher.schedule, z_t=z_t, times=times)
        # What the teacher is guided by, a student has in its weights, or is told.
        x, _ = predictor(student, conditioning, guidance_scale=scale if student.takes_guidance else 1.0)(z_t, t)
        return t, x, target

    def _draw(self, batch: LatentBatch, step: int, micro_batch: int) -> Draws:
        return draw(
            seed=self.seed,
            step=step,
            micro_batch=micro_batch,
            rank=self.global_rank,
            latents=batch.posterior.mean,
            caption_dropout=self.caption_dropout,
        )

    def _untrained_student(self) -> Denoiser:
        student = load_denoiser(self.teacher_name)
        self.guidance.prepare(student)
        return student

    def _load_first_teacher(self) -> Denoiser:
        first = load_denoiser(self.teacher_name, dtype=self.teacher_dtype).requires_grad_(False)
        return self.set_up(first).to(self.device).eval()

    def _sample(
        self, denoiser: Denoiser, conditioning: Conditioning, noise: Tensor, num_steps: int, guidance_scale: float
    ) -> Tensor:
        denoise = predictor(denoiser, conditioning, null=self._null(), guidance_scale=guidance_scale)
        return sample(denoise=denoise, schedule=denoiser.schedule, noise=noise, num_steps=num_steps)
