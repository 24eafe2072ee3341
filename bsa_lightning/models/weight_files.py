"""Files of weights (safetensors and torch's format): checked for damage, and read without running code."""

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
"""A pattern of the names of buffers that are not weights; libraries compute them, and a file may lack them."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors, by name, in a file of safetensors or of torch, or in the shards that an ``*.index.json`` lists.

    Raises:
        UserError: if a file is missing, damaged or of another format, or contains anything but named tensors.
    """
    if path.name.endswith(".index.json"):
        return {name: tensor for shard in shards_of(path) for name, tensor in read_weights(shard).items()}
    check(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        weights = torch.load(path, weights_only=True, mmap=zipfile.is_zipfile(path), map_location="cpu")
    except MemoryError:  # out of memory is not the fault of the file
        raise
    except Exception as error:  # a damaged file can cause any error
        raise UserError(f"{path} is not a file of weights ({first_line(error)}); download it again") from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} contains something other than named weights; name a file of weights")
    return dict(weights)


def check(path: Path) -> None:
    """Checks that a file of weights is not missing, empty, a pointer of git-lfs, truncated or damaged.

    torch does not verify the checksums in the archives that it writes, so the whole file is read here.

    Raises:
        UserError: if it is.
    """
    start = check_start(path)
    try:
        if path.suffix == ".safetensors":
            header_of(path)
        elif start[:2] == b"PK":
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{damaged} has changed")
    except MemoryError:  # out of memory is not the fault of the file
        raise
    except Exception as error:  # a damaged file can cause any error
        raise UserError(f"{path} is not a file of weights ({first_line(error)}); download it again") from error


def check_start(path: Path) -> bytes:
    """Checks that a file can be opened, is not empty, and is not a pointer of git-lfs.

    Returns:
        The first bytes of the file.

    Raises:
        UserError: if the check fails.
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
    """The type and the number of elements of each tensor in a safetensors file, by name."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        return {name: (part.get_dtype(), torch.Size(part.get_shape()).numel()) for name, part in slices.items()}


def check_folder(folder: Path) -> tuple[Path, int | None]:
    """Checks the files of weights that diffusers and transformers would read in ``folder``.

    Returns:
        The file, or the index of its shards, and the number of elements in them, which is ``None`` for files of
        torch, whose header does not give it.

    Raises:
        UserError: if there are no such files, or one is damaged or contains weights that are integers.
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
                raise UserError(
                    f"{file} holds {name} as {dtype}, but weights must be floating point; name a file of such weights"
                )
        elements = None if elements is None else elements + sum(count for _, count in header.values())
    return first, elements


def shards_of(index: Path) -> list[Path]:
    """The files that an ``*.index.json`` lists, each once, sorted by name.

    Raises:
        UserError: if it is not such an index, or lists a file that is missing or in another folder.
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
    """The first 150 characters of an error's message on one line, or the name of its class without a message."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:150] or type(error).__name__


def _first(folder: Path) -> Path:
    for kind in ("safetensors", "bin"):
        for stem in _STEMS:
            for path in (folder / f"{stem}.{kind}", folder / f"{stem}.{kind}.index.json"):
                if path.exists() or path.is_symlink():
                    return path
    raise UserError(f"{folder} has no weights, such as {_STEMS[0]}.safetensors; copy the folder again")


def part_of(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, by their names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
