"""Keeps Lightning from importing, at start-up, packages that the command does not use.

``import lightning.pytorch`` imports torch's compiler for one class and one decorator, and all of torchmetrics for two
classes. torchmetrics in turn imports torchvision, scipy, sympy, transformers and librosa wherever they are installed,
which takes longer than torch itself. Neither has a setting for that, so their imports are changed here, and nowhere
else:

- ``torchmetrics`` runs its own ``__init__`` at the first use of a name that is not listed in ``_TORCHMETRICS``. It is
  the same package with the same names and features, only later.
- Lightning uses the class ``torch._dynamo.OptimizedModule`` only in ``isinstance``. As long as ``torch._dynamo`` is not
  imported, no object is an instance of it, so a class that takes this into account stands in its place.
- Lightning decorates one method with ``torch.compiler.disable``, which imports the compiler at once. torch itself has a
  decorator that does the same at the first call.

Other packages import both as ever.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

_TORCHMETRICS = {
    "__version__": "__about__",
    "Metric": "metric",
    "MetricCollection": "collections",
    "MeanMetric": "aggregation",
    "SumMetric": "aggregation",
}
"""Names of torchmetrics that Lightning and this package use: the module of each."""

_USES_COMPILER = (
    "lightning.fabric.wrappers",
    "lightning.pytorch.trainer.connectors.logger_connector.result",
    "lightning.pytorch.utilities.compile",
)
_COMPILER = "torch._dynamo"


@contextmanager
def light_imports() -> Iterator[None]:
    """Returns a context in which Lightning is imported without what it does not use.

    The garbage collector is off meanwhile: nothing that an import makes is garbage, and looking costs a fifth of the
    time. Packages that are imported already are left as they are.
    """
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        sys.meta_path.remove(finder)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules whose execution is changed; all others are left to the finders of Python."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in ("torchmetrics", *_USES_COMPILER):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = (_Later if fullname == "torchmetrics" else _WithoutCompiler)(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """A loader around the one that Python found.

    Args:
        loader: the one that Python found.
    """

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader  # the change ends here


class _Later(_Loader):
    """Leaves a package unexecuted until a name is asked for that it does not have yet."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module._logger = logging.getLogger("torchmetrics")  # type: ignore[attr-defined]  # its modules import it
        module.__class__ = _LazyPackage


class _LazyPackage(ModuleType):
    """torchmetrics, before its ``__init__`` has run."""

    def __getattr__(self, name: str) -> object:
        if name in _TORCHMETRICS:
            importlib.import_module(
                f"{self.__name__}.utilities"
            )  # metric and utilities import each other, in this order
            return getattr(importlib.import_module(f"{self.__name__}.{_TORCHMETRICS[name]}"), name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


class _WithoutCompiler(_Loader):
    """Executes a module which imports ``OptimizedModule`` from torch's compiler, without importing the compiler."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        import torch

        if _COMPILER in sys.modules:
            return self.loader.exec_module(module)
        disable = torch.compiler.disable
        sys.modules[_COMPILER] = stand_in = ModuleType(_COMPILER)
        stand_in.OptimizedModule = _OptimizedModule  # type: ignore[attr-defined]
        torch.compiler.disable = torch._disable_dynamo  # type: ignore[assignment]
        try:
            self.loader.exec_module(module)
        finally:
            torch.compiler.disable = disable
            if sys.modules[_COMPILER] is stand_in:
                del sys.modules[_COMPILER]


class _AsksCompiler(type):
    def __instancecheck__(cls, instance: object) -> bool:
        compiler = sys.modules.get(_COMPILER)
        return compiler is not None and isinstance(instance, compiler.OptimizedModule)


class _OptimizedModule(metaclass=_AsksCompiler):
    """Stands for ``torch._dynamo.OptimizedModule``: has the same instances."""
