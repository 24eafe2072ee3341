"""The cost of an update, in parameters, bytes and FLOPs, computed from the shapes of the networks alone.

One micro-batch of the loss runs on torch's fake tensors, which have shapes, types and sizes but no memory. Attention is
assumed to be fused, and the optimizer to need no memory beyond its state.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from bsa_lightning.distillation.adapters import trained
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.models.base import Denoiser

_PROBE = (1024, 1024)
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Cost:
    """The cost of an update on one device.

    Args:
        parameters: the number of parameters of the student that are trained.
        teacher: the size of the teacher's weights, in bytes.
        student: the size of the student's weights that are not the teacher's in memory, in bytes.
        average: the size of the moving average, likewise, in bytes; 0 if there is none.
        gradients: the size of the gradients, in bytes.
        optimizer: the size of the optimizer's state, in bytes.
        activations: the peak size of the activations of a micro-batch, in bytes.
        teacher_flops: the FLOPs of the targets, by the teacher and the average, for all micro-batches of an update.
        student_flops: the FLOPs of the student, forward and backward, for all micro-batches of an update.
    """

    parameters: int
    teacher: int
    student: int
    average: int
    gradients: int
    optimizer: int
    activations: int
    teacher_flops: int
    student_flops: int

    @property
    def total(self) -> int:
        """The peak of the memory during an update, in bytes."""
        return self.teacher + self.student + self.average + self.gradients + self.optimizer + self.activations


def cost(module: ProgressiveDistillation, *, batch_size: int, precision: str, accumulate: int) -> Cost:
    """Returns the cost of an update of the first round; teachers of later rounds may need fewer evaluations.

    Args:
        module: the module, made under ``without_weights``.
        batch_size: the number of clips of a micro-batch.
        precision: the precision of the trainer: "32-true", "bf16-mixed" or "16-mixed".
        accumulate: the number of micro-batches of an update.
    """
    teacher, student = module.teacher, module.student
    parameter = cast("FakeTensor", next(student.parameters()))
    with parameter.fake_mode:
        z_t, conditioning = student.example_inputs(batch_size)
        t, scale = torch.full((batch_size,), 0.5), module.guidance.target_scale(0, torch.zeros(batch_size))
        _, null = student.example_inputs(1)
        dtype = _AUTOCAST.get(precision)
        autocast = torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)
        memory = PeakMemory()

        def target() -> Tensor:
            """Makes the predictions of a target; each further one costs the same."""
            with torch.no_grad():
                return [denoise(z_t, t).x for denoise in [first, *[second] * (num_predictions - 1)]][-1]

        def loss(x: Tensor) -> Tensor:
            return (own(z_t, t).x - x).square().mean()

        first, second, own = module.method.predictors(
            teacher, module.finished_student, student, conditioning=conditioning, null=null, scale=scale
        )
        num_predictions = module.method.num_predictions(module.method.factor(module.plan, module.current_round))

        with memory, autocast, _norms_in_float32():
            x, teacher_flops = _flops(target)
        student_flops = 0
        for _ in range(min(accumulate, 2)):  # the gradients are allocated in the first one only
            with memory, autocast, _norms_in_float32():
                error, forward = _flops(lambda: loss(x))
            with memory, _norms_in_float32():
                _, backward = _flops(error.backward)
            student_flops = forward + backward
        gradients = _bytes(p.grad for p in student.parameters() if p.grad is not None)
    parameters, shared = sum(p.numel() for p in trained(student)), set(teacher.parameters())
    return Cost(
        parameters=parameters,
        teacher=_bytes(teacher.parameters()),
        student=_bytes(set(student.parameters()) - shared),
        average=0 if module.ema is None else _bytes(set(module.ema.parameters()) - shared),
        gradients=gradients,
        optimizer=round(_state_bytes(module.optimizer) * parameters),
        activations=max(0, memory.peak - gradients),
        teacher_flops=accumulate * teacher_flops,
        student_flops=accumulate * student_flops,
    )


def sampling_flops(denoiser: Denoiser) -> int:
    """Returns the FLOPs of one network evaluation for one clip."""
    with cast("FakeTensor", next(denoiser.parameters())).fake_mode, torch.no_grad():
        z_t, conditioning = denoiser.example_inputs(1)
        return _flops(lambda: denoiser(z_t, torch.full((1,), 0.5), conditioning))[1]


@contextmanager
def _norms_in_float32() -> Iterator[None]:
    """A context in which autocast computes norms in float32, as on a GPU, also those recomputed in a backward pass."""

    def in_float32(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def cast(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
            if torch.is_autocast_enabled("cpu"):
                args, kwargs = tree_map_only(Tensor, Tensor.float, (args, kwargs))
            return norm(*args, **kwargs)

        return cast

    # A mode of torch would end where a backward pass begins.
    names = ("group_norm", "layer_norm")
    norms = {name: getattr(functional, name) for name in names}
    for name, norm in norms.items():
        setattr(functional, name, in_float32(norm))
    try:
        yield
    finally:
        for name, norm in norms.items():
            setattr(functional, name, norm)


class PeakMemory(TorchDispatchMode):
    """Tracks the size of all storages that are allocated in its context, in bytes: alive now, and at the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        for leaf in tree_leaves((args, kwargs)):  # inputs were allocated before, and outputs may be views of them
            if isinstance(leaf, Tensor):
                self._known.add(leaf.untyped_storage()._cdata)
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        self.peak = max(self.peak, self.live)
        return output

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class _FlopCount(TorchDispatchMode):
    """Counts the FLOPs in its context, by the formulas of ``FlopCounterMode``.

    That mode itself also follows modules, by hooks that keep what gradient checkpointing recomputes alive until Python
    collects garbage, so that the peak of the memory would be more than twice the real one.
    """

    def __init__(self) -> None:
        super().__init__()
        cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        self._formulas = FlopCounterMode(
            display=False,
            custom_mapping={
                cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
                cpu_backward: lambda d, q, k, v, *_, **__: sdpa_backward_flop_count(d, q, k, v),
            },
        ).flop_registry
        self.total = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        formula = self._formulas.get(cast("Any", func).overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=output)
        return output


def _flops(function: Callable[[], Any]) -> tuple[Any, int]:
    with _FlopCount() as count:
        output = function()
    return output, count.total


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _state_bytes(optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]) -> float:
    """Returns the size of an optimizer's state for one parameter, in bytes, measured on a matrix."""
    probe = nn.Parameter(torch.zeros(_PROBE))
    probe.grad = torch.zeros(_PROBE)
    made = optimizer([probe])
    made.step()
    state = [leaf for leaf in tree_leaves(made.state[probe]) if isinstance(leaf, Tensor)]
    return _bytes(state) / probe.numel()
