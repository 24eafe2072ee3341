"""What a run left on disk, told so that two runs can be compared line by line."""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

CLOCKS = {"seconds_per_clip"}
"""Columns that are clock times."""
_STRAY = re.compile(r"(^|/)\.|\.(partial|old|tmp)\b|-v\d+\.ckpt$")


def contents(folder: Path) -> dict[str, list[str]]:
    """Files and folders below ``folder`` by their relative paths, each as lines."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name + "/" * path.is_dir()] = [] if path.is_dir() else list(_lines(path, folder))
    return found


def differences(found: dict[str, list[str]], wanted: dict[str, list[str]]) -> list[str]:
    """What is not as wanted, and what lies around; empty if all is well."""
    told = [f"{path} is missing" for path in wanted.keys() - found.keys()]
    told += [f"{path} is too many" for path in found.keys() - wanted.keys()]
    told += [f"{path} is left over" for path in found.keys() & wanted.keys() if _STRAY.search(path)]
    for path in found.keys() & wanted.keys():
        ours, theirs = found[path], wanted[path]
        if ours != theirs:
            length = max(len(ours), len(theirs))
            ours, theirs = ours + ["nothing"] * (length - len(ours)), theirs + ["nothing"] * (length - len(theirs))
            unlike = [i for i in range(length) if ours[i] != theirs[i]]
            first = unlike[0]
            told.append(
                f"{path}: {len(unlike)} lines differ; line {first + 1}: {ours[first]} | wanted: {theirs[first]}"
            )
    return sorted(told)


def state(folder: Path) -> str:
    """What a dead run left, in a few words."""
    last = folder / "run" / "checkpoints" / "last.ckpt"
    words = []
    if last.is_file():
        try:
            words.append(f"checkpoint of update {torch.load(last, weights_only=True)['global_step']}")
        except Exception as error:  # any that unpickling may raise
            words.append(f"unreadable checkpoint ({type(error).__name__})")
    words += [path.name for path in sorted((folder / "run" / "rounds").glob("[!.]*"))]
    words += sorted({f"({path.name})" for path in folder.rglob("*") if _STRAY.search(path.name)})
    return ", ".join(words) or "nothing yet"


def _lines(path: Path, folder: Path) -> Iterator[str]:
    if path.suffix == ".ckpt":
        yield from _values("", torch.load(path, weights_only=True), str(folder))
    elif path.name == "environment.json":
        # The rest says which process it was, and when others last changed this repository.
        yield from sorted(json.loads(path.read_text())["packages"])
    elif path.name == "scores.csv":
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                yield ",".join(f"{name}={value}" for name, value in row.items() if name not in CLOCKS)
    elif path.parent.name == "samples" and path.suffix == ".safetensors":
        yield from _values(
            "", {name: value for name, value in load_file(path).items() if name != "seconds"}, str(folder)
        )
    elif path.suffix in (".csv", ".json", ".yaml"):
        yield from path.read_bytes().decode().replace(str(folder), "").split("\n")
    else:
        yield hashlib.sha256(path.read_bytes()).hexdigest()


def _values(name: str, value: object, folder: str) -> Iterator[str]:
    """A checkpoint as one line a number."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _values(f"{name}.{key}", part, folder)
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _values(f"{name}.{i}", part, folder)
    elif isinstance(value, torch.Tensor):
        digest = hashlib.sha256(value.contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
        yield f"{name} = {value.dtype} {tuple(value.shape)} {digest}"
    else:
        yield f"{name} = {value!r}".replace(folder, "")
