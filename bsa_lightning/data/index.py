"""The index of a store of prepared latents: its files and their digests."""

from __future__ import annotations

import re
from typing import Any

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.lists import parse_object

INDEX, NULL = "index.json", "null.safetensors"
FORMAT = 1

_FIELDS = {
    "format": int,
    "clips": str,
    "num_clips": int,
    "codec": str,
    "conditioner": str,
    "sequences": list,
    "conditioning": list,
    "null_sha256": str,
    "files": list,
}
_FILE_FIELDS = {"file": str, "num_clips": int, "num_bytes": int, "sha256": str, "texts_sha256": str}
_NAME = re.compile(r"\w[\w.-]*\.safetensors")


def parse_index(content: bytes, *, where: str) -> dict[str, Any]:
    """Parses an index.

    Args:
        content: the bytes of the index file.
        where: the name of the file, for the messages.

    Raises:
        UserError: if it is not an index, has another format, or names a file outside of its folder.
    """
    try:
        index = parse_object(content)
    except ValueError as error:
        raise UserError(f"{where} cannot be read as JSON ({error}); {_REMEDY}") from error
    _check(index, _FIELDS, where)
    if index["format"] != FORMAT:
        raise UserError(f"{where} has format {index['format']}, but this version reads {FORMAT}; {_REMEDY}")
    for file in index["files"]:
        _check(file, _FILE_FIELDS, where)
        if not _NAME.fullmatch(file["file"]):
            raise UserError(
                f"{where} names the file {file['file']!r}, which is not the plain name of a shard; {_REMEDY}"
            )
    if not isinstance(index.get("sampling", {}), dict):
        raise UserError(f"{where} is not an index of prepared latents (its sampling is no object); {_REMEDY}")
    _check_names(index, where)
    if index["num_clips"] != sum(file["num_clips"] for file in index["files"]):
        raise UserError(f"{where} says {index['num_clips']} clips, but its files have another number; {_REMEDY}")
    return index


def _check(found: object, fields: dict[str, type], where: str) -> None:
    content = found if isinstance(found, dict) else {}
    wrong = [name for name, type_ in fields.items() if type(content.get(name)) is not type_]
    wrong += [name for name, type_ in fields.items() if type_ is int and name not in wrong and content[name] < 1]
    wrong += [
        name
        for name in fields
        if name.endswith("sha256") and name not in wrong and not _SHA256.fullmatch(content[name])
    ]
    if wrong:
        raise UserError(f"{where} is not an index of prepared latents (no {', '.join(wrong)}); {_REMEDY}")


def _check_names(index: dict[str, Any], where: str) -> None:
    """Refuses names of tensors that are not text or occur twice, and sequences that are not stored."""
    conditioning, sequences = index["conditioning"], index["sequences"]
    files = [file["file"] for file in index["files"]]
    texts = all(isinstance(name, str) for name in [*conditioning, *sequences])
    if not texts or not conditioning or not set(sequences) <= set(conditioning):
        raise UserError(f"{where} is not an index of prepared latents (no conditioning, sequences); {_REMEDY}")
    for names in (conditioning, sequences, files):
        if len(set(names)) != len(names):
            raise UserError(f"{where} names one of {', '.join(names[:3])} twice; {_REMEDY}")


_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMEDY = "make the store anew with lightning prepare"
