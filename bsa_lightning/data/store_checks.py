"""Checks of the content of a store's files: whether they have the tensors and captions that the index requires."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.lists import parse_object
from bsa_lightning.models.conditioning import Conditioning


def check_shard(
    tensors: Mapping[str, Tensor], texts: bytes, index: Mapping[str, Any], *, num_clips: int, where: str
) -> list[list[str]]:
    """Checks the tensors and the captions of a shard.

    Args:
        tensors: the tensors of the shard.
        texts: the content of its file with ids and captions.
        index: the index of the store.
        num_clips: the number of clips of the shard according to the index.
        where: the name of the shard, for the message.

    Returns:
        The captions of each clip.

    Raises:
        UserError: if they do not agree with the index or with each other; the message names the first such tensor.
    """
    captions = _captions(texts, num_clips, where)
    shape = index.get("latent_shape")
    latent = tuple(shape) if isinstance(shape, list) else tuple(tensors["mean"].shape[1:]) if "mean" in tensors else ()
    ends = torch.tensor([len(several) for several in captions]).cumsum(0)
    num_captions = int(ends[-1])
    for name in ("mean", "std"):
        _require(_has(tensors, name, (num_clips, *latent)), name, where)
    _require("captions.ends" in tensors and torch.equal(tensors["captions.ends"], ends), "captions.ends", where)
    for name in index["conditioning"]:
        if name in index["sequences"]:
            ends = tensors.get(f"{name}.ends", torch.empty(0))
            counts = ends.dtype == torch.int64 and ends.shape == (num_captions,)
            _require(
                counts and bool((ends.diff(prepend=torch.zeros(1, dtype=torch.int64)) >= 0).all()),
                f"{name}.ends",
                where,
            )
            _require(_has(tensors, name, (int(ends[-1]),)), name, where)
        else:
            _require(_has(tensors, name, (num_captions,)), name, where)
    return captions


def read_null(content: bytes, index: Mapping[str, Any], *, where: str) -> Conditioning:
    """The conditioning of the empty caption, one clip, from the bytes of a store's file.

    Raises:
        UserError: if the file does not have the tensors that the index names, or a number in them is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        null = load(content)
    except SafetensorError as error:
        raise _other("null", where) from error
    _require(null.keys() == set(index["conditioning"]), "null", where)
    for name, tensor in null.items():
        _require(tensor.is_floating_point() and (tensor.ndim > 0 or name not in index["sequences"]), name, where)
    refuse_not_finite(null, where=where)
    # In the order of the index, since safetensors returns the tensors of a file in any order.
    return Conditioning.unpadded(
        {name: null[name][None] for name in index["conditioning"]}, sequences=index["sequences"]
    )


def refuse_not_finite(tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Checks that all numbers are finite, since others would spoil each batch that contains them.

    Raises:
        UserError: if they are not; the message names the first such tensor.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(f"{where} has numbers in {name} that are not finite; {_REMEDY}")


def _captions(texts: bytes, num_clips: int, where: str) -> list[list[str]]:
    try:
        content = parse_object(texts)
    except ValueError as error:
        raise _other("captions", where) from error
    captions = content.get("captions")
    _require(isinstance(captions, list) and len(captions) == num_clips, "captions", where)
    assert isinstance(captions, list)
    for several in captions:
        full = isinstance(several, list) and len(several) > 0 and all(isinstance(text, str) for text in several)
        _require(full, "captions", where)
    return captions


def _has(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> bool:
    """Whether ``tensors[name]`` exists, is float16, and has a shape that begins with ``shape``."""
    tensor = tensors.get(name)
    return tensor is not None and tensor.dtype == torch.float16 and tuple(tensor.shape[: len(shape)]) == shape


def _require(fits: bool, name: str, where: str) -> None:
    if not fits:
        raise _other(name, where)


def _other(name: str, where: str) -> UserError:
    return UserError(f"{where} does not contain the {name} that its index requires; {_REMEDY}")


_REMEDY = "delete the store and make it anew with lightning prepare"
