"""The base class of the modules that train on prepared latents, and how a run holds its networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import nn
from torch.optim import Optimizer

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number, check_seed
from bsa_lightning.common.settings_alone import NotLoadedError, refuse_to_load
from bsa_lightning.data.datamodule import AudioCapsLatents
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_codec, load_conditioner
from bsa_lightning.training.ema import EMA, check_decay
from bsa_lightning.training.sharding import shard

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
"""The precisions of the trainer that keep weights in float32."""
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
"""Makes an optimizer of the given parameters, such as the class ``torch.optim.Adam``."""

_UNMOVED = 1e-9
"""The relative change of all weights, in L2 norm, up to which training counts as without effect."""


@dataclass(frozen=True)
class NetworkOptions:
    """Options of teacher and student: their memory, and their compilation.

    Args:
        teacher_dtype: the type of the teacher's weights; bfloat16 halves their memory.
        gradient_checkpointing: whether the student computes activations anew in the backward pass, which saves memory.
        compile: whether to run the networks through ``torch.compile``, which takes minutes at the start.

    Raises:
        UserError: if ``teacher_dtype`` is neither float32 nor bfloat16.
    """

    teacher_dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.teacher_dtype not in ("float32", "bfloat16"):
            raise UserError(f"teacher_dtype is {self.teacher_dtype!r}, but must be float32 or bfloat16; choose one")

    @property
    def dtype(self) -> torch.dtype:
        """The type of the teacher's weights as a ``torch.dtype``."""
        dtype: torch.dtype = getattr(torch, self.teacher_dtype)
        return dtype


class RoundObserver(Callback, ABC):
    """A callback with a hook for the end of a round."""

    @abstractmethod
    def on_round_end(self, trainer: Trainer, pl_module: LightningModule, folder: Path) -> None:
        """Called on every rank when the student of a round is saved, before it becomes the teacher of the next round.

        Args:
            trainer: the trainer.
            pl_module: the module that trains in rounds.
            folder: the folder of the student.
        """


class LatentModule(LightningModule, ABC):
    """A module that trains on latents that were prepared with the codec and the text encoder of its teacher.

    Args:
        teacher: the teacher: a model folder, a hub id, or "tiny" or "tiny-flow", which are built in.
        compiled: whether to run the networks through ``torch.compile``.
    """

    def __init__(self, teacher: str, *, compiled: bool) -> None:
        super().__init__()
        self.teacher_name = teacher
        self.compiled = compiled

    optimizer: OptimizerFactory
    ema: EMA | None
    has_pending_gradients: bool = False
    """Whether gradients are accumulated for the next update."""
    _stops_after_update: bool = False

    @property
    def current_budget(self) -> int | None:
        """The number of updates after which the current round ends; ``None`` where there are no rounds."""
        return None

    @property
    def planned_updates(self) -> int | None:
        """The number of updates of all rounds, as decided so far; ``None`` where there are no rounds."""
        return None

    @property
    def place(self) -> str:
        """The current round for messages, such as "in round 2"; empty where there are no rounds."""
        return ""

    @property
    @abstractmethod
    def learner(self) -> Denoiser:
        """The network whose weights the optimizer updates."""

    def on_after_backward(self) -> None:
        self.has_pending_gradients = True

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Updates the network, and its average unless the update was skipped, before any callback sees the step."""
        # A scaler, of half precision, that skips an update keeps the gradients and lowers its scale.
        scaler = None if self.ema is None else getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 0.0 if scaler is None else scaler.get_scale()
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.has_pending_gradients = False
        is_skipped = scaler is not None and scaler.get_scale() < scale
        has_gradients = any(parameter.grad is not None for parameter in self.learner.parameters())
        if self.ema is not None and has_gradients and not is_skipped:
            self.ema.update(self.learner)
        optimizer.zero_grad()  # frees the gradients' memory before the next forward pass

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Lets a callback such as Lightning's ``Timer`` end the fit after an update, never between its batches."""
        del outputs, batch, batch_idx
        if self.has_pending_gradients:
            self._stops_after_update |= self.trainer.should_stop
            self.trainer.should_stop = False
        elif self._stops_after_update:
            self.trainer.should_stop = True

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Does nothing, since :meth:`optimizer_step` clears the gradients."""

    @property
    def data(self) -> AudioCapsLatents:
        """The data module of the trainer."""
        data: AudioCapsLatents = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    @property
    @abstractmethod
    def networks(self) -> Sequence[Denoiser]:
        """All networks that the module holds at the start; a network may be listed twice."""

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the network that is trained; all others stay in evaluation mode."""
        super().train(mode)
        for network in self.networks:
            if network is not self.learner:
                network.eval()
        return self

    def configure_model(self) -> None:
        for network in dict.fromkeys(self.networks):
            self.set_up(network)

    def set_up(self, network: Denoiser) -> Denoiser:
        """Compiles and shards a network in place, as the run's settings say; must be called on every rank."""
        if self.compiled:
            network.compile_network()
        shard(network, self.trainer.strategy)
        return network

    def check_data(self) -> None:
        """Refuses latents of another codec or text encoder than the teacher's, and weights that are not float32.

        Raises:
            UserError: if the latents or ``trainer.precision`` do not fit.
        """
        if self.trainer.precision not in PRECISIONS:
            raise UserError(
                f"trainer.precision is {self.trainer.precision}, but trained weights are kept in float32; choose one of"
                f" {', '.join(PRECISIONS)}"
            )
        self._check_fused()
        codec, conditioner = load_codec(self.teacher_name), load_conditioner(self.teacher_name)
        self.data.check_fingerprints(
            codec=codec.fingerprint, conditioner=conditioner.fingerprint, teacher=self.teacher_name
        )

    def _check_fused(self) -> None:
        """Refuses fused optimizers with what Lightning cannot do with them: they unscale gradients by themselves."""
        if "mixed" not in str(self.trainer.precision) or not getattr(
            self.optimizer([nn.Parameter(torch.zeros(1))]), "_step_supports_amp_scaling", False
        ):
            return
        told = f"optimizer is fused and trainer.precision {self.trainer.precision}"
        if self.trainer.precision == "16-mixed":
            raise UserError(f"{told}, with which bad updates are not seen; set fused of optimizer to false")
        if self.trainer.gradient_clip_val:
            raise UserError(
                f"{told}, with which Lightning cannot clip gradients, but trainer.gradient_clip_val is"
                f" {self.trainer.gradient_clip_val:g}; set fused of optimizer to false, or leave the clipping out"
            )

    def refuse_broken(self, network: nn.Module | None) -> None:
        """Refuses weights that are not finite, before they are written; must be called on every rank.

        Args:
            network: the network that the first rank is about to write; ``None`` on the other ranks.

        Raises:
            UserError: on every rank, if a weight is not finite.
        """
        broken = "" if network is None else _broken_tensor(network)
        if broken := self.trainer.strategy.broadcast(broken):
            raise UserError(
                f"training has made weights that are not finite, such as {broken}, so that they are not written; lower"
                " the learning rate and start another run"
            )

    def refuse_unchanged(self, network: nn.Module, before: nn.Module | None) -> None:
        """Refuses a network that training has not changed; must be called on every rank.

        Args:
            network: the network that is about to be written.
            before: the network at the start of the training, with the same parameters; ``None`` skips the check.

        Raises:
            UserError: on every rank, if the weights are the same up to rounding.
        """
        unchanged = False
        if before is not None and self.trainer.is_global_zero:
            weights = dict(network.named_parameters())
            pairs = [(weights[name].detach(), old.detach()) for name, old in before.named_parameters()]
            moved = sum(float((new - old.to(new.device)).double().square().sum()) for new, old in pairs)
            unchanged = moved <= _UNMOVED**2 * sum(float(old.double().square().sum()) for _, old in pairs)
        if self.trainer.strategy.broadcast(unchanged):
            raise UserError(
                "training has changed no weight, so that nothing is written; check the learning rate, ema_decay,"
                " trainer.gradient_clip_val, and whether updates were skipped"
            )

    def _null(self) -> Conditioning:
        """The conditioning of no caption, one clip."""
        null: Conditioning = self.data.null.to(self.device, non_blocking=True)
        return null


def check_training(optimizer: OptimizerFactory, *, seed: int, ema_decay: float | None) -> None:
    """Refuses settings of the training that are out of their range, before any network is loaded.

    Args:
        optimizer: makes the optimizer; it is tried on one parameter.
        seed: the seed, at least 0.
        ema_decay: the decay of the moving average, between 0 and 1; ``None`` is no average.

    Raises:
        UserError: if the optimizer cannot be made, a setting of it is not a finite number, or another setting is out of
            its range.
    """
    check_seed("seed", seed)
    if ema_decay is not None:
        check_decay(ema_decay)
    try:
        refuse_to_load("an optimizer")  # to make one imports torch's compiler
    except NotLoadedError:
        check_number("optimizer.lr", getattr(optimizer, "keywords", {}).get("lr", 1.0), above=0)
        raise
    try:
        (group,) = optimizer([nn.Parameter(torch.zeros(1))]).param_groups
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"optimizer cannot be made ({error}); correct its settings") from error
    check_number("the learning rate of optimizer", float(group["lr"]), above=0)
    for name, value in group.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                check_number(f"{name} of optimizer", number)


def _broken_tensor(network: nn.Module) -> str:
    """Returns the name of the first tensor with a value that is not finite, or an empty string."""
    tensors = network.state_dict().items()
    broken = (name for name, tensor in tensors if tensor.is_floating_point() and not tensor.isfinite().all())
    return next(broken, "")
