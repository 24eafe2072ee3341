"""Exponential moving average of a student: its own weights only, never the teacher's."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bsa_lightning.common.ranges import check_number


class EMA(nn.Module):
    """A frozen copy of a network that trails its weights.

    Args:
        network: what is averaged; the copy starts as its equal.
        decay: share of the average that an update keeps, between 0 and 1; a decay of 0.99 averages over some 100
            updates.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        check_number("ema_decay", decay, above=0, below=1, advice="leave it out for no averaging")
        self.decay = decay
        self._average = get_ema_multi_avg_fn(decay)
        self.average = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """average <- decay average + (1 - decay) network."""
        # With a decay, torch's average does not ask for the number of updates so far, its last argument.
        self._average(list(self.average.parameters()), list(network.parameters()), 0)


@torch.no_grad()
def copy_weights(*, source: nn.Module, target: nn.Module) -> None:
    """Copies in place, so that whoever holds the target's tensors (DDP, compiled code) keeps them.

    Networks that are sharded are so in the same way, but for what a round has added to the target.
    """
    weights = source.state_dict()
    for name, tensor in target.state_dict().items():
        weight = weights[name]
        if isinstance(weight, DTensor) and not isinstance(tensor, DTensor):
            weight = weight.full_tensor()
        tensor.copy_(weight)
