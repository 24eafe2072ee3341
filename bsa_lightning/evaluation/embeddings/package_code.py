"""Networks of other packages: imported without what the packages do beside, and made without drawing weights."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.overrides import TorchFunctionMode


def import_alone(package: str, folder: str, module: str) -> Any:  # noqa: ANN401 (a module of any package)
    """Returns a module of a package without running the package's ``__init__``.

    ``import frechet_audio_distance`` imports laion_clap, which asks the Hugging Face hub for tokenizers before anything
    is computed.

    Args:
        package: the name of the installed package.
        folder: the folder of the package that the module is in; relative imports inside it work.
        module: the name of the module.
    """
    name = f"_alone_{package}"
    if name not in sys.modules:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        holder = types.ModuleType(name)
        holder.__path__ = [str(Path(spec.submodule_search_locations[0]) / folder)]
        sys.modules[name] = holder
    return importlib.import_module(f"{name}.{module}")


class WithoutDraws(TorchFunctionMode):
    """A context in which networks are made without drawing initial weights, which a file replaces.

    It takes a tenth of the time, and leaves the state of torch's generator as it is.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        del types
        named = kwargs or {}
        if func.__name__ in _DRAWS:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


_DRAWS = ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_")
