"""LoRA students of a ladder: networks that share the frozen weights of their teacher, and how they are handed on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.order import seeded
from bsa_lightning.distillation.guidance_modes import GuidanceMode
from bsa_lightning.distillation.teachers import restore_teacher
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.lora import LoRA, merged_weights, restart_adapters
from bsa_lightning.training.ema import copy_weights
from bsa_lightning.training.latent_module import NetworkOptions
from bsa_lightning.training.sharding import Sharded, unsharded

_STARTS = -2
"""The number in the seeds of the adapters' starts that is in the place of the update in those of draws, from -1."""


def check(adapter: LoRA | None, networks: NetworkOptions) -> None:
    """Refuses options of networks with which teacher and student cannot share weights.

    Raises:
        UserError: if there is an adapter and the teacher's weights are not float32.
    """
    if adapter is not None and networks.dtype is not torch.float32:
        raise UserError(
            f"teacher_dtype is {networks.teacher_dtype}, but with an adapter the teacher's weights are the student's,"
            " too, and must be float32 for rounds to be merged into them; give --model.networks.teacher_dtype float32"
        )


def check_strategy(adapter: LoRA | None, strategy: Strategy) -> None:
    """Refuses to shard networks that share weights.

    Raises:
        UserError: if there is an adapter and the strategy is :class:`Sharded`.
    """
    if adapter is not None and isinstance(strategy, Sharded):
        raise UserError(
            "trainer.strategy is Sharded, but with an adapter teacher and student share their weights, which cannot be"
            " sharded twice; use ddp, since the gradients and the optimizer's state of an adapter are small"
        )


def make_student(
    adapter: LoRA | None, teacher: Denoiser, guidance: GuidanceMode, seed: int, own: Callable[[], Denoiser]
) -> Denoiser:
    """Returns the student of the first round.

    With an adapter, it is the network of the teacher, whose parameters it shares, with adapters. Layers that the mode
    of guidance adds are the student's own, and are trained in full.

    Args:
        adapter: the adapter; ``None`` if there is none.
        teacher: the frozen teacher.
        guidance: the mode of guidance, which prepares the network.
        seed: the seed of the run.
        own: makes the student without an adapter.
    """
    if adapter is None:
        return own()
    known = {id(parameter): parameter for parameter in teacher.parameters()}
    student = copy.deepcopy(teacher, dict(known))
    guidance.prepare(student)
    added = [parameter for parameter in student.parameters() if id(parameter) not in known]
    adapter.attach(student)
    for parameter in added:
        parameter.requires_grad_(True)
    restart_adapters(student, _starts(seed, 0))
    return student


def trained(network: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters of a network that are trained."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def shared(network: nn.Module, teacher: Denoiser) -> set[str]:
    """Returns the names of a network's parameters that are the teacher's own, or the same in memory."""
    known = {id(parameter) for parameter in teacher.parameters()}
    named = network.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if id(parameter) in known}


def unadapted(adapter: LoRA | None, network: Denoiser, make: Callable[[], Denoiser], *, keep: bool) -> Denoiser:
    """Returns a network with all of its weights, neither sharded nor with adapters; must be called on every process.

    Args:
        adapter: the adapter of the run; ``None`` if there is none.
        network: the network, which is returned if it is whole already, or if ``keep`` is false.
        make: makes a network of the same kind on the CPU, which is filled with the weights.
        keep: whether this process needs the result.
    """
    if adapter is None:
        return unsharded(network, make, keep=keep)
    whole = make() if keep else network
    if keep:
        _fill(whole, merged_weights(network))
    return whole


def hand_on(adapter: LoRA | None, student: Denoiser, *, teacher: Denoiser, seeds: tuple[int, int]) -> None:
    """Gives the teacher the weights of a finished student, in place.

    Adapters are merged into the weights that teacher and student share, and those of ``student`` start anew.

    Args:
        adapter: the adapter of the run; ``None`` if there is none.
        student: the finished student.
        teacher: the teacher.
        seeds: the seed of the run and the index of the next round.
    """
    if adapter is None:
        copy_weights(source=student, target=teacher)
    else:
        _fill(teacher, merged_weights(student))
        restart_adapters(student, _starts(*seeds))


def restore_shared(checkpoint: dict[str, Any], module: nn.Module, teacher: Denoiser, read: Denoiser) -> None:
    """Gives the teacher in place the weights that were read for it, and puts all that share them into a checkpoint.

    Args:
        checkpoint: the checkpoint, which is changed in place.
        module: the module, of which the teacher is a part.
        teacher: the teacher.
        read: the teacher of the checkpoint's round, as read from its folder.
    """
    if read.takes_guidance and not teacher.takes_guidance:
        teacher.add_guidance_input()
    copy_weights(source=read, target=teacher)
    own, names = module.state_dict(), shared(module, teacher)
    checkpoint["state_dict"].update({name: tensor for name, tensor in own.items() if name in names})
    restore_teacher(checkpoint, teacher)  # with its buffers, which nothing shares


def _fill(network: Denoiser, weights: dict[str, Tensor]) -> None:
    for name, tensor in network.state_dict().items():
        tensor.copy_(weights[name])


def _starts(seed: int, round_index: int) -> torch.Generator:
    return seeded(seed, _STARTS, round_index)
