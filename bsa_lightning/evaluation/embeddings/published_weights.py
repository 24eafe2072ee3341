"""Published weight files: fetched, identified by their hash, read without running code, and loaded into our modules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor, nn

from bsa_lightning.common.cache import user_cache
from bsa_lightning.common.download import fetch_file
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.common.settings_alone import refuse_to_load
from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.models.weight_files import check

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A weight file that published scores were computed with."""

    name: str
    """The name of the file."""
    source: str
    """The address of the public page with the file."""
    url: str
    """The address of the file itself."""
    sha256: str
    """The SHA-256 of the file, or its first digits where no more are known; empty where none is."""
    entry: str | None = None
    """The key of the state dict in the file; ``None`` if the file is a state dict itself."""
    is_checked: bool = False
    """Whether whoever fetched the file has compared it with its digest."""

    @property
    def whereabouts(self) -> str:
        """The name of the file and where to find it, for messages."""
        return f"{self.name} from {self.source}" + (f" (sha256 {self.sha256[:8]}...)" if self.sha256 else "")

    def is_it(self, sha256: str) -> bool:
        """Returns whether a file of this SHA-256 is the published one."""
        return bool(self.sha256) and sha256.startswith(self.sha256)


class Pretrained(Embedding):
    """An embedding with pretrained weights, which stays in evaluation mode."""

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        return super().train(False)


def located(weights: Path | None, published: Published) -> Path:
    """Returns the path of a file of weights; a published file of known digest that is not there is fetched first.

    Args:
        weights: the file, or the folder that the published file is kept in; ``None`` is the user's cache folder.
        published: the file that published scores were computed with.

    Raises:
        UserError: if the published file is not there and cannot be fetched.
    """
    path = user_cache("weights") / published.name if weights is None else Path(weights).expanduser()
    if path.is_dir():
        path /= published.name
    if path.name == published.name and not path.exists() and published.sha256:
        fetch_file(path, url=published.url, sha256=published.sha256, page=published.source)
    return path


def refuse_other_rate(sample_rate: int, published: Mapping[int, Published]) -> None:
    """Refuses a sample rate of which there are no published weights.

    Raises:
        UserError: if it is one.
    """
    if sample_rate not in published:
        raise UserError(f"sample_rate is {sample_rate}, but must be one of {', '.join(map(str, published))}")


class OtherWeightsError(Exception):
    """A file is whole, but holds weights of another network; the text says what differs."""


def fill(network: nn.Module, path: Path, published: Published, read: Callable[[Path], object] | None = None) -> str:
    """Loads the weights of a file into a network, in float32 and without gradients, and returns the file's SHA-256.

    A file with the published name must have the published content. A file of any other name may hold other weights of
    the same shapes: its hash is not checked, and a warning says so.

    Args:
        network: the network, whose parameters may be on the meta device.
        path: the path of the file.
        published: the file that published scores were computed with.
        read: a function that reads a file in another format than PyTorch's, and gives the tensors the network's names;
            it raises :class:`OtherWeightsError`, or any error for a damaged file.

    Raises:
        UserError: if there is no such file, it cannot be read, or it holds other weights.
    """
    if not path.is_file():
        raise UserError(f'weights is "{path}", but no such file or folder exists; put {published.whereabouts} there')
    refuse_to_load(path)
    sha256 = sha256_of_file(path)
    if unquote(path.name) == published.name and published.sha256 and not published.is_it(sha256):
        raise UserError(
            f"{path} is damaged or another file (sha256 {sha256[:8]}..., {path.stat().st_size} bytes);"
            f" put {published.whereabouts} there, or, if these are weights of your own, give the file another name: it"
            " is then not compared with the published one"
        )
    if published.sha256 and not published.is_it(sha256):
        _log.warning(
            "weights is %s, which is not %s: it is taken for weights of your own, whose scores are not published ones",
            path, published.whereabouts,
        )  # fmt: skip
    if not published.sha256 and not published.is_checked:
        _log.warning("weights is %s: no digest of %s is known here, so that nothing checks it", path, published.name)
    weights = _read(path, published, read or read_torch)
    if bad := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        raise UserError(f"{path} holds {bad[0]} with values that are not finite; put {published.whereabouts} there")
    if differing := _difference(network.state_dict(), weights):
        raise UserError(f"{path} holds other weights: {differing}; put {published.whereabouts} there")
    network.load_state_dict(weights, assign=True)
    network.float().requires_grad_(False)
    return sha256


def _read(path: Path, published: Published, read: Callable[[Path], object]) -> Mapping[str, Tensor]:
    try:
        content = read(path)
    except MemoryError:  # the machine is at fault, not the file
        raise
    except OtherWeightsError as error:
        raise UserError(f"{path} holds other weights: {error}; put {published.whereabouts} there") from error
    except Exception as error:  # a damaged file can raise any error in its reader
        raise UserError(f"{path} is not a whole file of weights; put {published.whereabouts} there") from error
    if published.entry is not None and isinstance(content, Mapping):
        content = content.get(published.entry)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        inside = f' under "{published.entry}"' if published.entry else ""
        raise UserError(f"{path} holds no state dict{inside}; put {published.whereabouts} there")
    return content


def read_torch(path: Path) -> object:
    """Returns the content of a file of PyTorch, read without executing code.

    Raises:
        Exception: of any kind, if the file is damaged or holds more than data.
    """
    check(path)
    with torch.serialization.safe_globals(_numpy_globals()):
        return torch.load(path, map_location="cpu", weights_only=True)


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Returns the first difference in names or shapes of two state dicts; empty if there is no difference."""
    for name, tensor in expected.items():
        if name not in found:
            return f"it lacks {name}"
        if found[name].shape != tensor.shape:
            return f"its {name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
    return next((f"it has a {name} too many" for name in found if name not in expected), "")


def _numpy_globals() -> list[Any]:
    """Returns the globals of pickled numbers of numpy: PANNs' files hold a sampler's state, LAION's their losses."""
    made = (("_reconstruct", np.empty(0)), ("scalar", np.float64()))
    # The module's name differs between versions of numpy; files have the oldest.
    cores = ("core", "_core")
    named = [(value.__reduce__()[0], f"numpy.{core}.multiarray.{name}") for name, value in made for core in cores]
    return [*named, np.ndarray, np.dtype, np.dtypes.Int64DType, np.dtypes.Float64DType]
