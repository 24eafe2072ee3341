"""``lightning fit --config C --plan``: the cost of an update, computed without loading any weight."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.loading import is_shape_alone, without_weights

_GIB = 2**30


def print_plan(parser: ArgumentParser, config: Namespace) -> None:
    """Prints the memory and FLOPs of an update, and the rounds, for the configuration of a ``fit``.

    Args:
        parser: the parser of the configuration, which makes the module without its weights.
        config: the configuration.

    Raises:
        UserError: if the model is not ``ProgressiveDistillation``.
    """
    from bsa_lightning.distillation.cost import Cost, cost, sampling_flops
    from bsa_lightning.distillation.module import ProgressiveDistillation

    with without_weights():
        module = parser.instantiate_classes(Namespace(model=config.model)).model
        is_published = is_shape_alone(config.model.init_args.teacher)
    if not isinstance(module, ProgressiveDistillation):
        raise UserError(f"model is {type(module).__name__}, but --plan plans ProgressiveDistillation; leave it out")
    settings = config.data.get("init_args") or Namespace()
    batch_size, accumulate = settings.get("batch_size", 1), config.trainer.accumulate_grad_batches or 1
    precision = str(config.trainer.precision or "32-true")
    found: Cost = cost(module, batch_size=batch_size, precision=precision, accumulate=accumulate)
    rows: list[tuple[str, str, str]] = [
        ("teacher", _size(found.teacher), f"{module.teacher_dtype}".removeprefix("torch.")),
        ("student", _size(found.student), f"{found.parameters:,} parameters{_adapter(module)}, float32"),
        ("average", _size(found.average), "of the student, on the same device" if found.average else "none"),
        ("gradients", _size(found.gradients), "float32"),
        ("optimizer", _size(found.optimizer), _optimizer_name(config)),
        ("activations", _size(found.activations), f"peak, {batch_size} clips, {precision}, {_checkpointing(module)}"),
        ("together", _size(found.total), "without the allocator's overhead and DDP's buckets (the gradients again)"),
    ]
    if is_published:
        print(f"{module.teacher_name} is no folder here, so that the shapes are those of the published weights\n")
    for name, size, note in rows:
        print(f"{name:<12}{size:>10}  {note}")
    clips = batch_size * accumulate
    evaluation = sampling_flops(module.teacher)
    print(f"\nan update of {clips} clips on one device, in the first round:")
    print(f"{'teacher':<12}{found.teacher_flops / 1e12:>10.3g}  TFLOP")
    print(f"{'student':<12}{found.student_flops / 1e12:>10.3g}  TFLOP, forward and backward")
    print(f"\none evaluation of the network for one clip: {evaluation / 1e12:.3g} TFLOP")
    for round_ in module.plan.rounds:
        before = module.plan.start_steps if module.method.keeps_teacher else module.plan.factor * round_.num_steps
        print(f"round {round_.index + 1}: {before} to {round_.num_steps} steps, {_budget(round_, module.plan)}")
    if module.plan.is_adaptive:
        kept = _size(found.student + found.average)
        print(f"\nthe best weights of a round: {kept} in the memory of the CPU, and in each checkpoint")


def _budget(round_: Any, plan: Any) -> str:  # noqa: ANN401 - a class that is imported where networks are needed
    """Returns the limits of a round's updates."""
    text = f"{round_.updates} updates"
    if round_.most_updates is not None:
        text = f"{round_.updates} to {round_.most_updates} updates, more while its trajectory error falls"
    if plan.patience is not None:
        text += f", fewer after {plan.patience} validations in a row without a lower trajectory error"
    return text


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"


def _optimizer_name(config: Namespace) -> str:
    optimizer: Any = config.model.init_args.optimizer
    name = optimizer.class_path if isinstance(optimizer, Namespace) else getattr(optimizer, "__name__", optimizer)
    return str(name).rsplit(".", 1)[-1]


def _checkpointing(module: Any) -> str:  # noqa: ANN401
    return "gradient checkpointing" if module.gradient_checkpointing else "all kept"


def _adapter(module: Any) -> str:  # noqa: ANN401
    return "" if module.adapter is None else " are trained; all others are the teacher's in memory"
