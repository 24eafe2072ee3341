"""Objects as the settings that would make them, so that Python and YAML build the same runs."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

from bsa_lightning.common.errors import UserError


def as_config(value: object) -> Any:  # noqa: ANN401 - any value of YAML
    """Returns the settings that would make a value: of an object, its class path and its constructor's arguments.

    Each argument is read from the attribute of the same name. A dataclass without a base class becomes a plain mapping,
    and a class or a ``functools.partial`` of one, which makes an optimizer, becomes its class path and keywords. A
    function becomes its import path.

    Args:
        value: the value, of any type that YAML has, or an object.

    Raises:
        UserError: if an object has no attribute of the name of an argument of its constructor.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): as_config(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [as_config(item) for item in value]
    if isinstance(value, functools.partial):
        return {**_named(value.func), "init_args": as_config(value.keywords)}
    if isinstance(value, type):
        return _named(value)
    if isinstance(value, FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    arguments = list(inspect.signature(type(value)).parameters)
    if lacking := [name for name in arguments if not hasattr(value, name)]:
        raise UserError(
            f"{type(value).__name__} does not keep the argument {lacking[0]} of its constructor, so that a run could"
            f" not record it; give it an attribute {lacking[0]}"
        )
    settings = {name: as_config(getattr(value, name)) for name in arguments}
    if dataclasses.is_dataclass(value) and type(value).__bases__ == (object,):
        return settings
    return {**_named(type(value)), "init_args": settings} if settings else _named(type(value))


def _named(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a class, or a function that makes an object
    """The class path, by the shortest module that exports the class, as the command line writes it."""
    parts = kind.__module__.split(".")
    modules = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    exporting = (name for name in modules if getattr(sys.modules.get(name), kind.__qualname__, None) is kind)
    return {"class_path": f"{next(exporting, kind.__module__)}.{kind.__qualname__}"}
