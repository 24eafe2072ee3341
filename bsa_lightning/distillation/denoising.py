"""Training or fine-tuning of a teacher on prepared latents (Liu et al., equation 1)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write
from bsa_lightning.common.ranges import check_number
from bsa_lightning.data.datamodule import LatentBatch
from bsa_lightning.diffusion.flow import TrainingTimes
from bsa_lightning.diffusion.losses import Errors, denoising_loss
from bsa_lightning.diffusion.weighting import Weighting, check_weights, plain_weighting
from bsa_lightning.distillation.draws import draw, seed_networks
from bsa_lightning.distillation.validation import WeightedMean
from bsa_lightning.models import provenance as origin
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.family import copy_licences
from bsa_lightning.models.loading import folder_sha256, load_denoiser, read_licence, read_provenance
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.predictor import predictor
from bsa_lightning.models.registry import family_of, resolve_folder
from bsa_lightning.training.ema import EMA
from bsa_lightning.training.latent_module import LatentModule, OptimizerFactory, check_training
from bsa_lightning.training.sharding import unsharded

_CHECKED_TIMES = 100
"""The number of times at which a weighting is checked before the training."""
_OF_THE_START = ("name", "source", "recipe")
"""Entries of a provenance that are about the weights themselves, and not true of a model fine-tuned from them."""


class Denoising(LatentModule):
    """Trains a denoiser to predict the clean latent from z_t, at random times t.

    At the end of a fit, ``<run>/model/`` is a copy of the starting folder with the new network.

    Args:
        teacher: the model to start from: a folder, a hub id, or "tiny" or "tiny-flow", which are built in.
        weighting: the weight w(SNR) of the squared error in x; ``None`` makes the loss a plain mean squared error in v
            (SNR + 1), or in the velocity u of a flow teacher ((1 + sqrt(SNR))^2).
        optimizer: makes the optimizer of the network's parameters; the learning rate falls linearly to zero over the
            fit.
        warmup: the number of updates over which the learning rate rises at the start, at least 0.
        ema_decay: the decay of the moving average that is saved, between 0 and 1; ``None`` saves the last weights.
        caption_dropout: the share of captions, from 0 to 1, that are replaced by the empty caption, which guidance
            needs.
        seed: the seed of noise, times and caption dropout, at least 0.
        compile: whether to run the network through ``torch.compile``, which takes minutes at the start.
        times: the distribution of the times t; ``None`` is uniform, over all times of the schedule.

    Raises:
        UserError: if a setting is out of its range.
    """

    def __init__(
        self,
        teacher: str = "tiny",
        weighting: Weighting | None = None,
        optimizer: OptimizerFactory = torch.optim.AdamW,
        warmup: int = 0,
        ema_decay: float | None = 0.999,
        caption_dropout: float = 0.1,
        seed: int = 0,
        compile: bool = False,
        times: TrainingTimes | None = None,
    ) -> None:
        super().__init__(teacher, compiled=compile)
        check_number("caption_dropout", caption_dropout, at_least=0, at_most=1)
        check_number("warmup", warmup, whole=True, at_least=0)
        check_training(optimizer, seed=seed, ema_decay=ema_decay)
        self.optimizer = optimizer
        self.warmup = warmup
        self.caption_dropout = caption_dropout
        self.seed = seed
        self.network = load_denoiser(teacher).train()
        self.times = times
        schedule = self.network.schedule
        self.weighting = plain_weighting(schedule) if weighting is None else weighting
        checked = schedule.trained_times(torch.linspace(0, 1, _CHECKED_TIMES + 1)[:-1])
        check_weights(self.weighting, schedule, checked, where="of the schedule")
        self.ema = EMA(self.network, ema_decay) if ema_decay is not None else None
        self._val_loss = WeightedMean()

    @property
    def learner(self) -> Denoiser:
        return self.network

    @property
    def trained(self) -> Denoiser:
        """The network that is saved: the moving average if there is one, else the network itself."""
        if self.ema is None:
            return self.network
        average: Denoiser = self.ema.average  # type: ignore[assignment]
        return average

    @property
    def networks(self) -> list[Denoiser]:
        return [self.network, self.trained]

    def setup(self, stage: str) -> None:
        del stage
        self.check_data()
        self._check_start()
        self._start_sha256 = folder_sha256(self.teacher_name)

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        loss = self._errors_of(self.network, batch, self.global_step, micro_batch, self.caption_dropout).loss()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        counts = batch.counts
        # A batch that only gives all ranks equally many batches needs a finite loss, too, for its weight of zero.
        errors = self._errors_of(self.trained, batch, -1, batch_idx, 0.0)
        self._val_loss.update(errors.loss(counts if counts.any() else ~counts), counts.sum())

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self._val_loss.compute(), prog_bar=True, batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.network.parameters())
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise UserError("trainer.max_steps is not set, but the learning rate falls to zero over it; set it")
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / (self.warmup + 1)) * max(0.0, 1 - step / total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["clips"], checkpoint["start"] = self.data.fingerprint, self._start_sha256

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.trainer.state.fn != "fit":
            return
        self.data.refuse_other_clips(checkpoint["clips"])
        if checkpoint["start"] != self._start_sha256:
            raise UserError(
                f'teacher is "{self.teacher_name}", but the run began with another one; name the folder that holds it'
            )

    def on_fit_end(self) -> None:
        self.save_model(Path(self.trainer.default_root_dir) / "model")

    def save_model(self, folder: Path) -> None:
        """Writes a copy of the starting folder with the new network, whole or not at all; must be called on every rank.

        Raises:
            UserError: if ``folder`` is the starting folder, a weight is not finite, or the starting folder is damaged.
        """
        start = resolve_folder(self.teacher_name)
        if folder.resolve() == start.resolve():
            raise UserError(f"{folder} is the model that training started from; name another run folder")
        first = self.trainer.is_global_zero
        network = unsharded(self.trained, lambda: load_denoiser(self.teacher_name), keep=first)
        self.refuse_broken(network if first else None)
        if not first:
            return
        self._check_start()
        with atomic_write(folder) as partial:
            shutil.copytree(start, partial, ignore=shutil.ignore_patterns(family_of(start).network, ".*", "*.md"))
            copy_licences(start, partial)
            network.save(partial)
            family_of(start).carry_pipeline(partial)
            known = read_provenance(start)
            kept = {name: value for name, value in known.items() if name not in _OF_THE_START}
            made = {"fine_tuned_from": origin.described(known, start), "updates": self.global_step}
            origin.write(partial, {**kept, "licence": read_licence(start), **made})

    def _check_start(self) -> None:
        """Refuses a starting folder whose files have changed since they were written."""
        ModelFolder(resolve_folder(self.teacher_name)).verify()

    def _errors_of(
        self, network: Denoiser, batch: LatentBatch, step: int, micro_batch: int, caption_dropout: float
    ) -> Errors:
        draws = draw(
            seed=self.seed,
            step=step,
            micro_batch=micro_batch,
            rank=self.global_rank,
            latents=batch.posterior.mean,
            caption_dropout=caption_dropout,
        )
        seed_networks(draws.seed, self.device)
        conditioning = batch.conditioning
        if caption_dropout:
            conditioning = conditioning.where(draws.keep_caption, self.network.null_beside(self._null(), conditioning))
        return denoising_loss(
            x=batch.posterior.sample(draws.posterior_noise),
            eps=draws.eps,
            uniform=draws.uniform,
            schedule=self.network.schedule,
            network=predictor(network, conditioning),
            weighting=self.weighting,
            times=self.times,
        )
