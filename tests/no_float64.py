"""A device without float64, such as MPS, in place of whatever device is there."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class NoFloat64(TorchDispatchMode):
    """Fails where a tensor of float64 is made on another device than the CPU, as a device without float64 does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "cpu":
                assert leaf.dtype not in (torch.float64, torch.complex128), f"{func} makes float64 on {leaf.device}"
        return output
