"""Published weight files: known by their hash, read without running their code, and put into our own modules."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.models.weight_files import check

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A weight file that scores in print were measured with."""

    name: str
    source: str
    """Address of the folder or record that holds it."""
    sha256: str
    entry: str | None = None
    """Under which key the file keeps its state dict; none: the file is one."""

    @property
    def whereabouts(self) -> str:
        """What to look for, and where."""
        return f"{self.name} from {self.source} (sha256 {self.sha256[:8]}...)"


class Pretrained(Embedding):
    """An embedding whose weights were learnt elsewhere: it stays in evaluation mode and needs no gradient."""

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        return super().train(False)


def fill(network: nn.Module, path: Path, published: Published) -> str:
    """Puts the weights of a file into ``network``, in float32 and not trainable; gives the file's sha256.

    A file that bears the published name must hold the published bytes. A file of any other name may hold other
    weights of the same shapes: its hash is not checked, and a warning says so.

    Raises:
        UserError: if there is no such file, or it is another one, or cannot be read.
    """
    path = path.expanduser()
    if not path.is_file():
        raise UserError(f'weights is "{path}", but no such file exists; put {published.whereabouts} there')
    sha256 = sha256_of_file(path)
    if unquote(path.name) == published.name and sha256 != published.sha256:
        raise UserError(
            f"{path} is damaged or another file (sha256 {sha256[:8]}..., {path.stat().st_size} bytes);"
            f" put {published.whereabouts} there, or give weights of your own another name, under which they are taken"
            " unchecked"
        )
    if sha256 != published.sha256:
        _log.warning(
            "weights is %s, which is not %s: it is taken for weights of your own, whose scores are not published ones",
            path, published.whereabouts,
        )  # fmt: skip
    weights = _read(path, published)
    if bad := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        raise UserError(f"{path} holds {bad[0]} with values that are not finite; put {published.whereabouts} there")
    if differing := _difference(network.state_dict(), weights):
        raise UserError(f"{path} holds other weights: {differing}; put {published.whereabouts} there")
    network.load_state_dict(weights, assign=True)
    network.float().requires_grad_(False)
    return sha256


def _read(path: Path, published: Published) -> Mapping[str, Tensor]:
    try:
        check(path)
        with torch.serialization.safe_globals(_numpy_globals()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:  # which says nothing of the file
        raise
    except Exception as error:  # whatever a damaged file makes of its reader
        raise UserError(f"{path} is not a whole file of weights; put {published.whereabouts} there") from error
    if published.entry is not None and isinstance(content, Mapping):
        content = content.get(published.entry)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        inside = f' under "{published.entry}"' if published.entry else ""
        raise UserError(f"{path} holds no state dict{inside}; put {published.whereabouts} there")
    return content


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The first way in which two state dicts differ; empty if they have the same names and shapes."""
    for name, tensor in expected.items():
        if name not in found:
            return f"it lacks {name}"
        if found[name].shape != tensor.shape:
            return f"its {name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
    return next((f"it has a {name} too many" for name in found if name not in expected), "")


def _numpy_globals() -> list[Any]:
    """What arrays of integers are made of: PANNs' files keep their training sampler beside the weights."""
    rebuild = np.empty(0).__reduce__()[0]  # goes by another module's name in each numpy, and by the oldest in the files
    named = [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    return [*named, np.ndarray, np.dtype, np.dtypes.Int64DType]
