"""Progressive distillation (Liu et al., Algorithm 1): one DDIM step learns what the teacher does in two."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from bsa_lightning.data.datamodule import AudioCapsLatents, LatentBatch
from bsa_lightning.diffusion.process import add_noise
from bsa_lightning.diffusion.sampling import sample
from bsa_lightning.diffusion.target import two_step_target
from bsa_lightning.diffusion.weighting import Weighting, weighted_mse
from bsa_lightning.distillation import checkpoint
from bsa_lightning.distillation.draws import Draws, draw
from bsa_lightning.distillation.ema import EMA, copy_weights
from bsa_lightning.distillation.guidance import Guidance
from bsa_lightning.distillation.plan import Plan, Round
from bsa_lightning.distillation.student import save_student
from bsa_lightning.distillation.validation import ValidationErrors
from bsa_lightning.errors import UserError
from bsa_lightning.teachers.base import Conditioning, Denoiser
from bsa_lightning.teachers.folder import (
    folder_sha256,
    load_codec,
    load_conditioner,
    load_denoiser,
    read_sampling,
)
from bsa_lightning.teachers.guided import predictor

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]


class ProgressiveDistillation(LightningModule):
    """Teacher and student of one round, and the step from a round to the next.

    Args:
        plan: the ladder of rounds.
        weighting: of the x-space error, as a function of SNR.
        guidance: where the guidance of the first teacher goes.
        teacher: the model folder of the first teacher, or "tiny" for the built-in one.
        optimizer: of the student's parameters, made anew each round; its rate falls linearly to zero in a round.
        ema_decay: of the average of the student that a round ends with; none ends with the last weights.
        caption_dropout: share of captions replaced by none, where the mode of guidance needs the null branch.
        seed: of noise, times and dropout.
        teacher_dtype: of the teacher's weights; bfloat16 halves their memory.
        gradient_checkpointing: whether the student computes activations anew in the backward pass, which saves memory.
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
    ) -> None:
        super().__init__()
        self.plan = plan
        self.weighting = weighting
        self.guidance = guidance
        self.teacher_name = teacher
        self.optimizer = optimizer
        self.caption_dropout = caption_dropout
        self.seed = seed
        self.teacher_dtype = getattr(torch, teacher_dtype)
        self.student = load_denoiser(teacher).train()
        self.teacher = load_denoiser(teacher, dtype=self.teacher_dtype).requires_grad_(False).eval()
        guidance.prepare(self.student)
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            self.student.enable_gradient_checkpointing()
        self.ema = EMA(self.student, ema_decay) if ema_decay is not None else None
        self.register_buffer("round", torch.tensor(0))
        self.register_buffer("round_start", torch.tensor(0))
        plan.check_schedule(self.teacher.schedule)
        self._teacher_folder: Path | str = teacher
        self._teacher_sha256 = ""
        self._errors = ValidationErrors()
        self._zero: list[Denoiser] = []  # the first teacher, in a list so that it is no submodule
        self._zero_latents: dict[int, Tensor] = {}

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
    def finished_student(self) -> Denoiser:
        """What a round hands on: the average where there is one, else the student."""
        if self.ema is None:
            return self.student
        average: Denoiser = self.ema.average  # type: ignore[assignment]
        return average

    @property
    def run_folder(self) -> Path:
        return Path(self.trainer.default_root_dir)

    @property
    def data(self) -> AudioCapsLatents:
        """The stream of latents that the trainer was given."""
        data: AudioCapsLatents = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def setup(self, stage: str) -> None:
        del stage
        self._teacher_sha256 = folder_sha256(self.teacher_name)
        self.guidance.check_teacher(self.teacher_name, read_sampling(self.teacher_name).guidance)
        codec, conditioner = load_codec(self.teacher_name), load_conditioner(self.teacher_name)
        self.data.check_fingerprints(
            codec=codec.fingerprint, conditioner=conditioner.fingerprint, teacher=self.teacher_name
        )

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
        conditioning = batch.conditioning
        if self.guidance.drops_captions:
            conditioning = conditioning.where(draws.keep_caption, self._null())
        t, student_x, target = self._student_and_target(batch, draws, conditioning, self.student)
        loss = weighted_mse(x=student_x, target=target, weight=self.weighting(self.student.schedule.snr(t)))
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({"round": float(self.round + 1), "num_steps": float(self.current_round.num_steps)})
        return loss

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """The average moves with every update, before any callback sees (and saves) the step."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.ema is not None:
            self.ema.update(self.student)

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Distillation error with fixed draws, and the distance of final latents from the first teacher's."""
        draws = self._draw(batch, -1, batch_idx)
        t, student_x, target = self._student_and_target(batch, draws, batch.conditioning, self.finished_student)
        error = (student_x - target).square().flatten(1).mean(1)
        snr = self.student.schedule.snr(t)
        num_steps, scale = self.current_round.num_steps, self.guidance.student_scale
        final = self._sample(self.finished_student, batch.conditioning, draws.eps, num_steps, scale)
        distance = (final - self._zero_final(batch, batch_idx, draws.eps)).square().flatten(1).mean(1)
        self._errors.update(weight=self.weighting(snr).float(), distance=distance, error=error, snr=snr)

    def on_validation_epoch_end(self) -> None:
        self.log("val/num_steps", float(self.current_round.num_steps), batch_size=1)
        for name, value in self._errors.compute().items():
            self.log(name, value, batch_size=1, sync_dist=True)

    def test_step(self, batch: object) -> None:
        """Nothing: ``Scoring`` walks clips of its own when a test starts."""

    def on_validation_end(self) -> None:
        self._zero.clear()

    def finish_round(self) -> Path:
        """Writes the student's folder; on every rank, since all wait for it."""
        folder = self.run_folder / "rounds" / self.current_round.folder
        if self.trainer.is_global_zero:
            save_student(
                self.finished_student,
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
        self._teacher_folder = folder.relative_to(self.run_folder)
        self._teacher_sha256 = folder_sha256(folder)
        self.trainer.strategy.setup_optimizers(self.trainer)

    def on_save_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        checkpoint.drop_teacher(checkpoint_, folder=self._teacher_folder, sha256=self._teacher_sha256)

    def on_load_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        teacher, self._teacher_folder, self._teacher_sha256 = checkpoint.restore_teacher(
            checkpoint_, self.run_folder, dtype=self.teacher_dtype
        )
        self.teacher = teacher.to(self.device).requires_grad_(False).eval()

    def _student_and_target(
        self, batch: LatentBatch, draws: Draws, conditioning: Conditioning, student: Denoiser
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Times (batch,), the student's x-prediction at z_t, and the target x*."""
        num_steps = self.current_round.num_steps
        i = (draws.uniform * num_steps).floor() + 1  # uniform on 1..N
        t, mid, s = i / num_steps, (i - 0.5) / num_steps, (i - 1) / num_steps
        alpha, sigma = student.schedule.alpha_sigma(t)
        z_t = add_noise(x=batch.posterior.sample(draws.posterior_noise), eps=draws.eps, alpha=alpha, sigma=sigma)
        scale = self.guidance.target_scale(int(self.round), draws.guidance)
        with torch.no_grad():
            target = two_step_target(
                teacher=predictor(self.teacher, conditioning, null=self._null(), guidance_scale=scale),
                schedule=self.teacher.schedule,
                z_t=z_t,
                t=t,
                mid=mid,
                s=s,
            )
        x, _ = predictor(student, conditioning, guidance_scale=scale)(z_t, t)
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

    def _zero_final(self, batch: LatentBatch, batch_idx: int, noise: Tensor) -> Tensor:
        """Final latents of the first teacher on its own grid; computed once, since they never change."""
        if batch_idx not in self._zero_latents:
            if not self._zero:
                self._zero.append(load_denoiser(self.teacher_name, dtype=self.teacher_dtype).to(self.device).eval())
            final = self._sample(self._zero[0], batch.conditioning, noise, self.plan.start_steps, self.guidance.scale)
            self._zero_latents[batch_idx] = final.cpu()
        return self._zero_latents[batch_idx].to(self.device)

    def _sample(
        self, denoiser: Denoiser, conditioning: Conditioning, noise: Tensor, num_steps: int, guidance_scale: float
    ) -> Tensor:
        denoise = predictor(denoiser, conditioning, null=self._null(), guidance_scale=guidance_scale)
        return sample(denoise=denoise, schedule=denoiser.schedule, noise=noise, num_steps=num_steps)

    def _null(self) -> Conditioning:
        null: Conditioning = self.data.null.to(self.device)
        return null
