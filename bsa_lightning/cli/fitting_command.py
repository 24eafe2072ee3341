"""Which of Lightning's commands a model is for, before anything of it is built."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from lightning.pytorch import LightningModule

from bsa_lightning.common.errors import UserError

_STEPS = {"fit": "training_step", "validate": "validation_step", "test": "test_step", "predict": "predict_step"}
"""The method of a module that each command calls."""
_ADVICE = {
    "predict": "make sound of a run's students with lightning generate --model RUN, or name a configuration of"
    " Generation, such as --config predict",
    "test": "lightning score --model RUN scores a teacher alone, and lightning test the students of a distillation",
}


def command_mistakes(command: str, class_path: str) -> Iterator[UserError]:
    """Yields an error if a model is not for a command.

    Args:
        command: "fit", "validate", "test" or "predict".
        class_path: the path of the model's class.
    """
    module, _, name = class_path.rpartition(".")
    kind = getattr(importlib.import_module(module), name) if module else None
    if not isinstance(kind, type) or not issubclass(kind, LightningModule) or _has(kind, _STEPS[command]):
        return
    others = [f"lightning {other}" for other, step in _STEPS.items() if _has(kind, step)]
    fits = f"it is for {' and '.join(others)}" if others else "it has none of the methods that the commands call"
    advice = f"; {_ADVICE[command]}" if command in _ADVICE else ""
    yield UserError(f"model is {name}, which lightning {command} cannot use: {fits}{advice}")


def _has(kind: type[LightningModule], step: str) -> bool:
    return getattr(kind, step) is not getattr(LightningModule, step) or (
        step == "predict_step" and kind.forward is not LightningModule.forward
    )
