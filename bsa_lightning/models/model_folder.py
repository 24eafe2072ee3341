"""Strict reading of a model folder: each part with exactly its weights, all finite, and unchanged since written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json, sha256_of_file
from bsa_lightning.models import provenance, weight_files
from bsa_lightning.models.base import shapes_only
from bsa_lightning.models.hashing import combined, digests_of, is_read
from bsa_lightning.models.weight_files import COUNTS, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Module = TypeVar("Module", bound=nn.Module)
_MOST_TIMES = 2
"""The largest ratio of a network's number of weights to its file's for which memory is allocated."""


class ModelFolder:
    """A model folder, read with diffusers and transformers but with checks that they do not make.

    Both libraries only log missing and unexpected weights, and neither notices that a file has changed. If
    ``provenance.json`` contains digests of the files, each part is compared with them when it is read.

    Args:
        path: a complete folder, or a student's.

    Raises:
        UserError: if the provenance cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: dict[str, str] | None = provenance.read(path).get("files")
        self._found: dict[str, dict[str, str]] = {}

    def has(self, part: str) -> bool:
        """Whether the folder has the subfolder ``part``."""
        return (self.path / part).is_dir()

    def require(self, *names: str) -> None:
        """Checks that the folder has the files ``names``, given relative to it.

        Raises:
            UserError: if one is missing.
        """
        for name in names:
            if not (self.path / name).is_file():
                raise UserError(
                    f"{self.path} is not a model folder: it has no {name}; name a folder in diffusers' layout"
                )

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file of the folder.

        Raises:
            UserError: if it is missing, does not contain an object, or was changed since it was written.
        """
        self.require(name)
        if self._written is not None and "/" in name:
            known = {name: self._written[name]} if name in self._written else {}
            self._compare({name: sha256_of_file(self.path / name)}, known)
        return read_json(self.path / name)

    def fingerprint(self, *parts: str) -> str:
        """One digest of the files of ``parts`` but for code, each of them compared with the digests in the provenance.

        Raises:
            UserError: if a file was changed since it was written.
        """
        found = [item for part in parts for item in self._digests(part).items()]
        return combined({name: sha256 for name, sha256 in found if not name.endswith(".py")})

    def verify(self, *parts: str) -> None:
        """Compares the files of ``parts``, or of all parts without arguments, with the digests in the provenance.

        Raises:
            UserError: if a file was changed since it was written.
        """
        if self._written is not None:
            known = {name.partition("/")[0] for name in self._written}
            for part in parts or sorted(known):
                self._digests(part)

    def network(
        self, cls: type[Module], part: str, *, dtype: torch.dtype = torch.float32, ignored: str | None = None
    ) -> Module:
        """A network of diffusers or transformers with the weights of a part, in evaluation mode.

        Args:
            cls: the class of the network.
            part: the subfolder.
            dtype: the type of the weights.
            ignored: a regular expression that the beginnings of the names of ignored weights match.

        Raises:
            UserError: if the part is missing or was changed since it was written, its configuration is for another
                class, or its weights are not exactly those that the configuration asks for, all of them finite.
        """
        self._check_kind(cls, part)
        self.verify(part)
        return read_network(cls, self.path / part, dtype=dtype, ignored=ignored)

    def shapes(self, cls: type[Module], part: str, *, dtype: torch.dtype) -> Module:
        """A network of diffusers as the configuration of a part describes it, without memory for its weights.

        Raises:
            UserError: if the configuration cannot be read, or is for another class.
        """
        self._check_kind(cls, part)
        with readable(self.path / part, cls.__name__):
            return _shapes(cls, self.path / part, dtype)

    def tokenizer(self, part: str) -> PreTrainedTokenizerBase:
        """The tokenizer in the subfolder ``part``; code in the folder is not run.

        Raises:
            UserError: if it is missing, was changed since it was written, or cannot be read.
        """
        from transformers import AutoTokenizer

        self.require(f"{part}/tokenizer_config.json")
        self.verify(part)
        path = self.path / part
        for file in path.iterdir():
            if file.is_file() and file.suffix in (".json", ".model"):
                weight_files.check_start(file)
        with readable(path, "a tokenizer"):
            return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)

    def _digests(self, part: str) -> dict[str, str]:
        if part not in self._found:
            found = digests_of(self.path / part)
            if self._written is not None:
                known = {name: sha256 for name, sha256 in self._written.items() if name.startswith(f"{part}/")}
                self._compare(found, known)
            self._found[part] = found
        return self._found[part]

    def _compare(self, found: dict[str, str], written: dict[str, str]) -> None:
        for name in sorted(found.keys() | written.keys()):
            if found.get(name) == written.get(name) or (name not in written and not is_read(name)):
                continue
            if name not in found:
                what = "is missing"
            elif name not in written:
                what = "was not there when the folder was written"
            else:
                what = "is damaged or was changed since it was written"
            raise UserError(
                f'{self.path / name} {what}; copy the folder again or, if that is intended, remove "files" and "sha256"'
                f" from its {provenance.PROVENANCE}"
            )

    def _check_kind(self, cls: type[nn.Module], part: str) -> None:
        """Checks that a configuration is for ``cls``; both libraries would use the settings they know of any other."""
        config = self.json(f"{part}/config.json")
        if _of_diffusers(cls):
            key, known = "_class_name", [cls.__name__]
        else:
            key, known = "model_type", list(_model_types(cls))
        if key in config and config[key] not in known:
            raise UserError(
                f'{key} is "{config[key]}" in {self.path / part / "config.json"}, but only'
                f" {' or '.join(sorted(known))} can be read there; name another model folder"
            )


def read_network(
    cls: type[Module], path: Path, *, dtype: torch.dtype = torch.float32, ignored: str | None = None
) -> Module:
    """A network with exactly the weights in the folder ``path``, in evaluation mode, as :meth:`ModelFolder.network`.

    Raises:
        UserError: if the folder cannot be read, or its weights are not exactly those that its configuration asks for,
            all of them finite.
    """
    file, elements = weight_files.check_folder(path)
    with readable(path, cls.__name__):
        if _of_diffusers(cls):
            if elements is not None:
                _check_size(path, _shapes(cls, path, torch.float32), elements)
            options: dict[str, Any] = {"torch_dtype": dtype, "low_cpu_mem_usage": False}
        else:
            options = {"dtype": dtype}
        network, report = cls.from_pretrained(  # type: ignore[attr-defined]
            path, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True, **options
        )
    _check_report(file, network, report, ignored)
    check_finite(network, file)
    if _of_diffusers(cls):
        # Else a student's folder would name the folder of its teacher on this machine, and its digest depend on it.
        network.register_to_config(_name_or_path="")
    return network.eval()


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """A context in which any error of a library that reads ``path`` as a ``kind`` becomes a ``UserError``."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for file in path.rglob("*"):
        if file.exists() and not file.is_file() and not file.is_dir():
            raise UserError(f"{file} is a pipe or a device, which might never end; put the file itself there")
    before = [(module, module.get_verbosity()) for module in (of_diffusers, of_transformers)]
    of_transformers.disable_progress_bar()  # bars of loading would break up those of training
    for module, _ in before:
        module.set_verbosity(module.CRITICAL)
    try:
        yield
    except (UserError, MemoryError):  # out of memory is not the folder's fault
        raise
    except Exception as error:  # a damaged file can cause any error
        raise UserError(
            f"{path} cannot be read as {kind} ({first_line(error)}); replace it with an undamaged one"
        ) from error
    finally:
        for module, verbosity in before:
            module.set_verbosity(verbosity)


def check_finite(network: nn.Module, where: object) -> None:
    """Checks that all weights are finite numbers.

    Raises:
        UserError: if they are not; the message names the first such weight and ``where`` the weights are from.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{where} holds {name} with values that are not finite; name undamaged weights")


def _check_report(path: Path, network: nn.Module, report: dict[str, Any], ignored: str | None) -> None:
    """Refuses weights that are missing, unexpected or of another shape, as a library reports them."""
    ours = network.state_dict()
    missing = [name for name in report["missing_keys"] if name not in ours or ours[name].is_floating_point()]
    missing = [name for name in missing if name not in _unused(network)]
    surplus = [
        name
        for name in report["unexpected_keys"]
        if not COUNTS.search(name) and not (ignored is not None and re.match(ignored, name))
    ]
    unequal = [name if isinstance(name, str) else name[0] for name in report["mismatched_keys"]]
    found = {"lacks": missing, "has, beyond its configuration,": surplus, "has, in another shape,": unequal}
    for what, names in found.items():
        if names:
            others = f" and {len(names) - 1} others" if len(names) > 1 else ""
            raise UserError(
                f"{path} {what} {min(names)}{others}, so weights and configuration do not belong together;"
                " put those of one model there"
            )


def _unused(network: nn.Module) -> tuple[str, ...]:
    """Names of weights without influence, which a file may lack: statistics of a vocoder that does not normalise."""
    config = getattr(network, "config", None)
    return ("mean", "scale") if getattr(config, "normalize_before", True) is False else ()


def _check_size(path: Path, network: nn.Module, elements: int) -> None:
    wanted = sum(weight.numel() for weight in network.state_dict().values())
    if wanted > _MOST_TIMES * elements:
        raise UserError(
            f"{path / 'config.json'} describes {wanted} weights, but the files beside it hold {elements};"
            " put those of one model there"
        )


def _shapes(cls: type[Module], path: Path, dtype: torch.dtype) -> Module:
    with shapes_only(dtype):
        return cls.from_config(cls.load_config(path))  # type: ignore[attr-defined]


def _of_diffusers(cls: type[nn.Module]) -> bool:
    from diffusers import ModelMixin

    return issubclass(cls, ModelMixin)


def _model_types(cls: type[nn.Module]) -> tuple[str, ...]:
    """The model types of transformers that ``cls`` can be read from: its own, and those of models that contain it."""
    own = cls.config_class.model_type  # type: ignore[attr-defined]
    return (own, *_LIKEWISE.get(own, ()))


_LIKEWISE = {"clap_text_model": ("clap",), "t5": ("mt5",)}
"""For a model type, other types whose folders contain its weights."""
