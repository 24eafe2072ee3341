"""A device beside the CPU for machines without one, so that tests see which tensors a GPU would refuse, or wait for.

Its tensors are held by the CPU, which computes with them. An operation with tensors of both devices fails where it
would with a GPU, and whenever the CPU would wait for the device, the place is noted. Importing this module tells torch
of a device "simulated" for the rest of the process.
"""

import traceback
from contextlib import contextmanager

import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
_COPIES = (aten.copy_.default, aten._to_copy.default)
_INDEXED = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)
"""Of these, the indices may be on the CPU, and are copied; the CPU waits for a mask, to know how much it chooses."""
_READ = (
    aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default, aten.nonzero.default,
    aten.masked_select.default, aten._unique2.default, aten.unique_dim.default, aten.bincount.default,
)  # fmt: skip
"""The CPU waits for these, since what they return, or its shape, depends on what is in the tensor."""


class _Module:
    """What torch asks for by ``torch.simulated``. It says that there is no device, so that nothing takes it unasked."""

    def is_available(self):
        return False

    def is_initialized(self):
        return True

    def _is_in_bad_fork(self):
        return False

    def device_count(self):
        return 0

    def manual_seed(self, seed):
        pass

    manual_seed_all = manual_seed

    def get_amp_supported_dtype(self):
        return []


_setup_privateuseone_for_python_backend("simulated", backend_module=_Module())
DEVICE = torch.device("simulated:0")


class Elsewhere(torch.Tensor):
    """A tensor on the device, whose numbers are in ``held``."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        self = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE,
        )  # fmt: skip
        self.held = held
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    # By these, files are written.
    def storage(self):
        return self.held.storage()

    def untyped_storage(self):
        return self.held.untyped_storage()

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)

    def __repr__(self):
        return f"Elsewhere({self.held})"


_waits = []


def _note(what):
    """Notes that the CPU waits, and where: the last lines outside of torch, the innermost last."""
    frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
    lines = [f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename != __file__]
    _waits.append(f"{what} at {' < '.join(reversed(lines[-8:]))}")


def _ends_there(func, args, kwargs, there):
    """Whether what an operation returns is on the device."""
    if func is aten.copy_.default:
        return isinstance(args[0], Elsewhere)
    if (asked := kwargs.get("device")) is not None:
        return torch.device(asked).type == DEVICE.type
    return bool(there)


def _check(func, args, kwargs, tensors, ends_there):
    """Refuses tensors of two devices, and notes where the CPU would wait."""
    if (generator := kwargs.get("generator")) is not None and ends_there and generator.device.type == "cpu":
        raise RuntimeError(f"{func} on {DEVICE} with a generator of the CPU")
    if func in _COPIES:
        crosses = any(isinstance(tensor, Elsewhere) is not ends_there for tensor in tensors)
        waits = crosses and not (kwargs.get("non_blocking") or args[2:3] == (True,))
    elif func in _INDEXED and isinstance(args[0], Elsewhere):
        _refuse_two_devices(func, [args[0], *(arg for arg in args[2:] if isinstance(arg, torch.Tensor))])
        indices = [index for index in args[1] if index is not None]
        waits = any(not isinstance(index, Elsewhere) or index.dtype is torch.bool for index in indices)
    else:
        _refuse_two_devices(func, tensors)
        waits = func in _READ and any(isinstance(tensor, Elsewhere) for tensor in tensors)
    if waits:
        _note(func)


def _refuse_two_devices(func, tensors):
    """Refuses tensors of two devices, but for numbers on the CPU that an element-wise operation reads."""
    changes_the_first = func._schema.is_mutable and not isinstance(tensors[0], Elsewhere) if tensors else False
    takes_numbers = torch.Tag.pointwise in func.tags and not changes_the_first
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    numbers = [tensor for tensor in tensors if takes_numbers and tensor.dim() == 0 and tensor.device.type == "cpu"]
    if there and len(there) + len(numbers) < len(tensors):
        shapes = [f"{tuple(tensor.shape)} on {tensor.device.type}" for tensor in tensors]
        raise RuntimeError(f"{func} of tensors on two devices: {', '.join(shapes)}")


def _run(func, args, kwargs):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    ends_there = _ends_there(func, args, kwargs, there)
    _check(func, args, kwargs, tensors, ends_there)
    args, kwargs = tree_map_only(Elsewhere, lambda tensor: tensor.held, (args, dict(kwargs)))
    if ends_there and kwargs.get("device") is not None:
        kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
    if func is aten._to_copy.default:
        kwargs.setdefault("memory_format", torch.preserve_format)
    output = func(*args, **kwargs)
    known = {id(tensor.held): tensor for tensor in there}

    def wrap(held):
        wrapped = known.get(id(held))
        if wrapped is None:
            return Elsewhere(held)
        assert wrapped.shape == held.shape, f"{func} changes a shape in place, which is not simulated"
        return wrapped

    return tree_map_only(torch.Tensor, wrap, output) if ends_there else output


class _Operations(TorchDispatchMode):
    """Catches operations whose arguments have no tensor, such as ``torch.zeros(3, device=DEVICE)``, and copies."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Does what cannot be caught as operations: tensors of numbers, and transforms, which change shapes in place."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.stft, torch.istft) and isinstance(args[0], Elsewhere):
            assert all(leaf.device == DEVICE for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
            args, kwargs = tree_map_only(Elsewhere, lambda tensor: tensor.held, (args, kwargs))
            return Elsewhere(func(*args, **kwargs))
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


@contextmanager
def simulated_device():
    """A context in which tensors can be on ``DEVICE``."""
    with _Operations(), _Functions():
        yield


def new_waits():
    """The places where the CPU has waited for the device since this was called last."""
    places = list(_waits)
    _waits.clear()
    return places


class _Accelerator(CPUAccelerator):
    def setup_device(self, device):
        assert device == DEVICE


def simulated_trainer():
    """The settings of a ``Trainer`` on the device, in the context of :func:`simulated_device`."""
    return {"accelerator": _Accelerator(), "strategy": SingleDeviceStrategy(DEVICE)}
