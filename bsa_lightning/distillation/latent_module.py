"""What the modules of this package share: prepared latents to train on, and networks that a run sets up in its way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch.optim import Optimizer

from bsa_lightning.data.datamodule import AudioCapsLatents
from bsa_lightning.distillation.ema import EMA
from bsa_lightning.distillation.sharding import shard
from bsa_lightning.teachers.base import Conditioning, Denoiser
from bsa_lightning.teachers.folder import load_codec, load_conditioner


class LatentModule(LightningModule, ABC):
    """Trains on latents that were prepared with its teacher.

    Args:
        teacher: a model folder, or "tiny" for the built-in one.
        compiled: whether to compile the networks.
    """

    def __init__(self, teacher: str, *, compiled: bool) -> None:
        super().__init__()
        self.teacher_name = teacher
        self.compiled = compiled

    ema: EMA | None

    @property
    @abstractmethod
    def learner(self) -> Denoiser:
        """The network whose weights the optimizer moves."""

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """The average moves with every update that is one, before any callback sees (and saves) the step."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.ema is not None and any(parameter.grad is not None for parameter in self.learner.parameters()):
            self.ema.update(self.learner)
        optimizer.zero_grad()  # else these gradients live through the next update's forward passes

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Nothing: an update leaves no gradients."""

    @property
    def data(self) -> AudioCapsLatents:
        """The stream of latents that the trainer was given."""
        data: AudioCapsLatents = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    @property
    @abstractmethod
    def networks(self) -> Sequence[Denoiser]:
        """All that there are at the start; one may come twice."""

    def configure_model(self) -> None:
        for network in dict.fromkeys(self.networks):
            self.set_up(network)

    def set_up(self, network: Denoiser) -> Denoiser:
        """Compiles and shards a network in place, as this run asks; on every rank alike."""
        if self.compiled:
            network.compile_network()
        shard(network, self.trainer.strategy)
        return network

    def check_data(self) -> None:
        """Refuses latents that were prepared with another codec or text encoder than the teacher's."""
        codec, conditioner = load_codec(self.teacher_name), load_conditioner(self.teacher_name)
        self.data.check_fingerprints(
            codec=codec.fingerprint, conditioner=conditioner.fingerprint, teacher=self.teacher_name
        )

    def _null(self) -> Conditioning:
        """The conditioning of no caption, one clip."""
        null: Conditioning = self.data.null.to(self.device)
        return null
