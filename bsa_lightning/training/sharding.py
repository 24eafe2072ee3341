"""Networks that are sharded over all devices (FSDP2), for models that do not fit on one device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.utils._pytree import tree_map_only

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.base import Denoiser

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor  # with it comes sympy, which a run that shards nothing never needs


class Sharded(DDPStrategy):
    """One process for each device as under DDP, each of which holds one shard of every network (``fully_shard``).

    Weights, average, gradients and optimizer state are sharded; a block of a network is gathered only while it
    computes. A checkpoint is one unsharded file, as under any other strategy, so that a run can be resumed with or
    without sharding. Lightning's own strategy for FSDP2 would write a folder, and read it before a module can add what
    is missing in it.

    Args:
        timeout_minutes: the time for which a process waits for the others before it fails, in minutes.
    """

    def __init__(self, timeout_minutes: float = 30.0) -> None:
        super().__init__(timeout=timedelta(minutes=timeout_minutes))
        self._mesh: DeviceMesh | None = None

    def setup_environment(self) -> None:
        super().setup_environment()
        self._mesh = init_device_mesh(self.root_device.type, (self.world_size,))

    def setup(self, trainer: Trainer) -> None:
        """Sets up the strategy without DDP's wrapper around the module, whose networks are sharded already."""
        Strategy.setup(self, trainer)

    def _setup_model(self, model: nn.Module) -> nn.Module:  # type: ignore[override]
        return model

    def teardown(self) -> None:
        """Leaves the networks on their devices: what is written when a fit has ended is gathered from there."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()

    def shard(self, denoiser: Denoiser) -> None:
        """Shards a network in place, whose weights are the same on every process.

        A compiled network is gathered as a whole while it computes, since gathering block by block would break its
        graph.
        """
        from torch.distributed.fsdp import fully_shard

        if not is_sharded(denoiser):
            # With `reshard_after_forward`, the outermost part too frees its gathered weights after a forward pass:
            # weights that are copied into the network between two passes would otherwise be lost with them.
            blocks = [] if denoiser.is_compiled else denoiser.blocks()
            for part in (*blocks, denoiser):
                fully_shard(part, mesh=self._mesh, reshard_after_forward=True)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: object = None) -> None:
        """Gathers the tensors one by one, on every process, and writes them on the first."""
        from torch.distributed.tensor import DTensor

        gathered = tree_map_only(DTensor, self._gather, checkpoint)
        super().save_checkpoint(gathered, filepath, storage_options)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        weights = {name: share(tensor, like=own.get(name)) for name, tensor in checkpoint["state_dict"].items()}
        super().load_model_state_dict({"state_dict": weights}, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        states = []
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                i: {name: share(value, like=parameters[i]) for name, value in values.items()}
                for i, values in saved["state"].items()
            }
            states.append({**saved, "state": state})
        super().load_optimizer_state_dict({"optimizer_states": states})

    def _gather(self, tensor: DTensor) -> Tensor | None:
        gathered = tensor.full_tensor()
        return gathered.cpu() if self.is_global_zero else None


def is_sharded(part: Tensor | nn.Module) -> bool:
    """Returns whether a tensor or a network is sharded; nothing is where torch's modules for it are not imported."""
    tensor, fsdp = (sys.modules.get(f"torch.distributed.{name}") for name in ("tensor", "fsdp"))
    return (tensor is not None and isinstance(part, tensor.DTensor)) or (
        fsdp is not None and isinstance(part, fsdp.FSDPModule)
    )


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor with all its values, gathered from all processes if it is sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def shard(denoiser: Denoiser, strategy: Strategy) -> None:
    """Shards a network in place under :class:`Sharded`; other strategies leave it as it is.

    Raises:
        UserError: if the strategy is another one that shards, since it could not promote a student.
    """
    if isinstance(strategy, Sharded):
        strategy.shard(denoiser)
    elif isinstance(strategy, (FSDPStrategy, ModelParallelStrategy)):
        raise UserError(
            f"trainer.strategy is {type(strategy).__name__}, under which a student cannot become a teacher; add"
            " --config trainer/fsdp instead"
        )


def share(tensor: Any, *, like: Tensor | None) -> Any:  # noqa: ANN401 - an optimizer's state holds numbers too
    """Returns this process's shard of a tensor, sharded as ``like`` is; values of another shape are returned whole."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or not isinstance(tensor, Tensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def unsharded(denoiser: Denoiser, make: Callable[[], Denoiser], *, keep: bool) -> Denoiser:
    """Returns a network with all of its weights: the network itself, or if it is sharded, a copy of it on the CPU.

    Must be called on every process; tensors are gathered one by one.

    Args:
        denoiser: the network.
        make: makes a network of the same kind, which is filled with the weights.
        keep: whether this process needs the copy; on other processes ``denoiser`` is returned.
    """
    if not is_sharded(denoiser):
        return denoiser
    copy = make() if keep else None
    places = {} if copy is None else copy.state_dict()
    for name, tensor in denoiser.state_dict().items():
        full = whole(tensor)
        if keep:
            places[name].copy_(full)
    return denoiser if copy is None else copy
