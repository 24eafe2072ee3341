"""Files of weights, safetensors and torch's own: whole, of the right format, and read without running code."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json

_POINTER = b"version https://git-lfs"
_INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL")
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
COUNTS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|num_batches_tracked|relative_position_index)$|\.attn\.(masked_)?bias$"
)
"""Names of tables that are no weights: libraries make them themselves, and files have them or not."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file in safetensors or of torch's own, or of the shards that an ``*.index.json`` lists.

    Raises:
        UserError: if it is missing, damaged, of another format, or holds something else.
    """
    if path.name.endswith(".index.json"):
        return {name: tensor for shard in shards_of(path) for name, tensor in read_weights(shard).items()}
    check(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        weights = torch.load(path, weights_only=True, mmap=zipfile.is_zipfile(path), map_location="cpu")
    except MemoryError:  # which says nothing of the file
        raise
    except Exception as error:  # whatever a damaged file makes of its reader
        raise UserError(f"{path} is not a file of weights ({first_line(error)}); download it again") from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} holds something else than named weights; name a file of weights")
    return dict(weights)


def check(path: Path) -> None:
    """Refuses a file of weights that is missing, empty, a pointer to another file, cut short or damaged.

    torch does not look at the checksums of the archives that it writes, so all of the file is read here.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    start = check_start(path)
    try:
        if path.suffix == ".safetensors":
            header_of(path)
        elif start[:2] == b"PK":
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{damaged} has changed")
    except MemoryError:  # which says nothing of the file
        raise
    except Exception as error:  # whatever a damaged file makes of its reader
        raise UserError(f"{path} is not a file of weights ({first_line(error)}); download it again") from error


def check_start(path: Path) -> bytes:
    """Refuses a file that cannot be opened, is empty, or is a pointer to another file.

    Returns:
        Its first bytes.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{path} is a pipe or a device, which might never end; put the file itself there")
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); put the file itself there") from error
    if not start:
        raise UserError(f"{path} is empty; download it again")
    if start == _POINTER:
        raise UserError(f"{path} is a pointer of git-lfs, not the file itself; run `git lfs pull` where it is from")
    return start


def header_of(path: Path) -> dict[str, tuple[str, int]]:
    """Type and number of elements of each tensor in a safetensors file, by name."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        return {name: (part.get_dtype(), torch.Size(part.get_shape()).numel()) for name, part in slices.items()}


def check_folder(folder: Path) -> tuple[Path, int | None]:
    """Checks the files of weights that diffusers and transformers would read in ``folder``.

    Returns:
        The file, or the index of several, and how many elements they hold; ``None`` if that takes reading them.

    Raises:
        UserError: if there is none, or one is damaged or holds integers where weights belong.
    """
    first = _first(folder)
    elements: int | None = 0
    for file in shards_of(first) if first.name.endswith(".index.json") else [first]:
        check(file)
        if file.suffix != ".safetensors":
            elements = None
            continue
        header = header_of(file)
        for name, (dtype, _) in header.items():
            if dtype in _INTEGERS and not COUNTS.search(name):
                raise UserError(f"{file} holds {name} as {dtype}, but weights are floating point; name those")
        elements = None if elements is None else elements + sum(count for _, count in header.values())
    return first, elements


def shards_of(index: Path) -> list[Path]:
    """The files that an ``*.index.json`` lists, each once.

    Raises:
        UserError: if it is no such index, or lists a file that is somewhere else or missing.
    """
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise UserError(f"{index} has no weight_map from weights to files; download it again")
    names = sorted(set(listed.values()))
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise UserError(f"{index} lists {name}, which is not beside it; download that, too")
    return [index.parent / name for name in names]


def first_line(error: Exception) -> str:
    """The beginning of what an error says, or its class if it says nothing."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:150] or type(error).__name__


def _first(folder: Path) -> Path:
    for kind in ("safetensors", "bin"):
        for stem in _STEMS:
            for path in (folder / f"{stem}.{kind}", folder / f"{stem}.{kind}.index.json"):
                if path.exists() or path.is_symlink():
                    return path
    raise UserError(f"{folder} has no weights, such as {_STEMS[0]}.safetensors; copy the folder again")
