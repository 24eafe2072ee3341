"""The exponential moving average of a network's weights, and copies of weights from one network to another."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bsa_lightning.common.ranges import check_number
from bsa_lightning.training.sharding import is_sharded, share, whole

Snapshot = dict[str, Tensor]
"""The weights of a network by name, as :func:`snapshot` returns them."""


class EMA(nn.Module):
    """The exponential moving average of a network's weights, in a frozen copy of the network.

    Args:
        network: the network to average; the average starts at its weights.
        decay: the share of the average that an update keeps, between 0 and 1; a decay of 0.99 averages over about 100
            updates.
        shared: parameters of the network that are never trained, which the average shares instead of copying them.
    """

    def __init__(self, network: nn.Module, decay: float, *, shared: Iterable[nn.Parameter] = ()) -> None:
        super().__init__()
        check_decay(decay)
        self.decay = decay
        self._average = get_ema_multi_avg_fn(decay)
        known = {id(parameter): parameter for parameter in shared}
        self.average = copy.deepcopy(network, known).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Moves the average to ``decay * average + (1 - decay) * network``."""
        pairs = [
            pair for pair in zip(self.average.parameters(), network.parameters(), strict=True) if pair[0] is not pair[1]
        ]
        # The last argument is the number of updates so far, which torch's average with a decay does not use.
        self._average([mine for mine, _ in pairs], [theirs for _, theirs in pairs], 0)


def check_decay(decay: float) -> None:
    """Refuses a decay that is not between 0 and 1.

    Raises:
        UserError: if it is not.
    """
    check_number("ema_decay", decay, above=0, below=1, advice="leave it out for no averaging")


@torch.no_grad()
def copy_weights(*, source: nn.Module, target: nn.Module) -> None:
    """Copies weights in place, so that references to the target's tensors (of DDP, of compiled code) stay valid.

    Both networks must be sharded in the same way, or not at all; parts that a round has added to the target need not be
    sharded.

    Args:
        source: the network to copy from.
        target: the network to copy to; all of its parameters and buffers must be in ``source``.
    """
    weights = source.state_dict()
    for name, tensor in target.state_dict().items():
        weight = weights[name]
        tensor.copy_(weight if is_sharded(tensor) else whole(weight))


@torch.no_grad()
def snapshot(network: nn.Module, *, without: Collection[str] = ()) -> Snapshot:
    """Returns a copy of the weights of a network: on the CPU, or on the device if the network is sharded.

    Args:
        network: the network.
        without: the names of weights that are left out.
    """
    return {
        name: tensor.clone() if is_sharded(tensor) else tensor.to("cpu", copy=True)
        for name, tensor in network.state_dict().items()
        if name not in without
    }


@torch.no_grad()
def restore(network: nn.Module, weights: Snapshot) -> None:
    """Copies weights back into the network, in place.

    Args:
        network: the network.
        weights: its snapshot, sharded as it is or not at all.
    """
    own = network.state_dict()
    for name, weight in weights.items():
        tensor = own[name]
        tensor.copy_(share(weight, like=tensor) if is_sharded(tensor) and not is_sharded(weight) else weight)
