"""Damaged and forged stores of latents, and good ones: see data_faults."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from fault_case import Build, Case
from safetensors.torch import load_file, save_file

from bsa_lightning.data.latents import LatentReader

INDEX, SHARD, TEXTS = "index.json", "shard-00000.safetensors", "shard-00000.json"


def read(folder: Path) -> int:
    """Opens the store, verifies it and reads each row."""
    reader = LatentReader(folder)
    reader.verify()
    return sum(1 for i in range(len(reader)) if reader[i].captions)


def damage(change: Callable[[Path, Random], object]) -> Build:
    def build(folder: Path, rng: Random) -> Case:
        change(folder, rng)
        return Case(lambda: read(folder))

    return build


def good(change: Callable[[Path, Random], object]) -> Build:
    def build(folder: Path, rng: Random) -> Case:
        expected = json.loads((folder / INDEX).read_text())["num_clips"]
        change(folder, rng)
        return Case(lambda: read(folder), expected)

    return build


def index(change: Callable[[dict], object]) -> Callable[[Path, Random], object]:
    """Changes the index."""

    def edit(folder: Path, rng: Random) -> None:
        content = json.loads((folder / INDEX).read_text())
        changed = change(content)
        (folder / INDEX).write_text(json.dumps(content if changed is None else changed))

    return edit


def forged(change: Callable[[dict], object], name: str = SHARD) -> Build:
    """Changes the tensors of the first shard, or of the null, and makes the digests right."""

    def edit(folder: Path, rng: Random) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
        sign(folder)

    return damage(edit)


def told(change: Callable[[dict], object]) -> Build:
    """Changes the texts of the first shard, and makes the digests right."""

    def edit(folder: Path, rng: Random) -> None:
        content = json.loads((folder / TEXTS).read_text())
        change(content)
        (folder / TEXTS).write_text(json.dumps(content))
        sign(folder)

    return damage(edit)


def sign(folder: Path) -> None:
    """Writes the digests of the files that are there into the index."""
    content = json.loads((folder / INDEX).read_text())
    content["null_sha256"] = sha256(folder / "null.safetensors")
    for file in content["files"]:
        path = folder / file["file"]
        file |= {"num_bytes": path.stat().st_size, "sha256": sha256(path)}
        file["texts_sha256"] = sha256(path.with_suffix(".json"))
    (folder / INDEX).write_text(json.dumps(content))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def put(names: list[str | int], value: object) -> Callable[[Path, Random], object]:
    """Sets one place of the index."""

    def change(content: dict) -> None:
        place = content
        for name in names[:-1]:
            place = place[name]
        place[names[-1]] = value

    return index(change)


def flip(folder: Path, rng: Random) -> None:
    """One bit of one of the files that the index has a digest of."""
    path = folder / rng.choice([SHARD, TEXTS, "null.safetensors", "shard-00001.safetensors"])
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def shorten(folder: Path, rng: Random) -> None:
    path = folder / rng.choice([SHARD, TEXTS, INDEX, "null.safetensors"])
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) - 2)])


def without(folder: Path, rng: Random) -> None:
    (folder / rng.choice([SHARD, TEXTS, INDEX, "null.safetensors"])).unlink()


def spoil(name: str, value: float) -> Callable[[dict], object]:
    def change(tensors: dict) -> None:
        tensors[name].flatten()[3] = value

    return change


STORES: dict[str, Build] = {
    "a bit flipped": damage(flip),
    "a file cut": damage(shorten),
    "a file missing": damage(without),
    "index: nested deeply": damage(lambda folder, rng: (folder / INDEX).write_text("[" * 100_000)),
    "index: a list": damage(index(lambda content: [content])),
    "index: a name twice": damage(lambda folder, rng: (folder / INDEX).write_text('{"format": 1, "format": 1}')),
    "index: a huge number": damage(
        lambda folder, rng: (folder / INDEX).write_text(
            (folder / INDEX).read_text().replace('"num_clips": ', '"num_clips": ' + "9" * 5000, 1)
        )
    ),
    "index: no number of clips": damage(put(["num_clips"], "many")),
    "index: a truth for a number": damage(put(["format"], True)),
    "index: fewer than no clips": damage(put(["files", 0, "num_clips"], -9)),
    "index: fewer than no bytes": damage(put(["files", 0, "num_bytes"], -1)),
    "index: another count": damage(put(["num_clips"], 3)),
    "index: no files": damage(put(["files"], [])),
    "index: a file twice": damage(
        index(lambda content: content.update(files=2 * content["files"], num_clips=2 * content["num_clips"]))
    ),
    "index: a file that is a text": damage(put(["files", 0], SHARD)),
    "index: a file elsewhere": damage(put(["files", 0, "file"], f"../{SHARD}")),
    "index: no digest": damage(put(["files", 0, "sha256"], "unknown")),
    "index: sequences of nothing": damage(put(["sequences"], ["absent"])),
    "index: sequences of numbers": damage(put(["sequences"], [1])),
    "index: sequences of lists": damage(put(["sequences"], [["states"]])),
    "index: no conditioning": damage(index(lambda content: content.update(sequences=[], conditioning=[]))),
    "index: another conditioning": damage(
        index(lambda content: content.update(sequences=["other"], conditioning=["other"]))
    ),
    "index: another latent": damage(put(["latent_shape"], [1, 2, 3])),
    "a shard that is none, signed": damage(lambda folder, rng: ((folder / SHARD).write_bytes(b"no"), sign(folder))),
    "texts that are none, signed": damage(lambda folder, rng: ((folder / TEXTS).write_bytes(b"no"), sign(folder))),
    "a null that is none, signed": damage(
        lambda folder, rng: ((folder / "null.safetensors").write_bytes(b"no"), sign(folder))
    ),
    "shard: no mean": forged(lambda tensors: tensors.pop("mean")),
    "shard: no ends": forged(lambda tensors: tensors.pop("captions.ends")),
    "shard: no conditioning": forged(lambda tensors: tensors.pop("states")),
    "shard: fewer latents": forged(lambda tensors: tensors.update(std=tensors["std"][1:])),
    "shard: another precision": forged(lambda tensors: tensors.update(mean=tensors["mean"].double())),
    "shard: ends beyond the end": forged(lambda tensors: tensors["states.ends"].add_(1)),
    "shard: ends that fall": forged(lambda tensors: tensors.update({"states.ends": tensors["states.ends"].flip(0)})),
    "shard: ends that are one number": forged(lambda tensors: tensors.update({"states.ends": torch.tensor(3)})),
    "shard: other captions counted": forged(lambda tensors: tensors["captions.ends"].add_(1)),
    "shard: a mean that is none": forged(spoil("mean", float("nan"))),
    "shard: states without end": forged(spoil("states", float("inf"))),
    "null: none": forged(lambda tensors: tensors["states"].fill_(float("nan")), "null.safetensors"),
    "null: another name": forged(lambda tensors: tensors.update(x=tensors.pop("states")), "null.safetensors"),
    "texts: a clip fewer": told(lambda content: content["captions"].pop()),
    "texts: a clip without captions": told(lambda content: content["captions"].__setitem__(0, [])),
    "texts: a caption that is a number": told(lambda content: content["captions"].__setitem__(1, [3])),
    "texts: no captions": told(lambda content: content.pop("captions")),
}

GOOD_STORES: dict[str, Build] = {
    "as it was made": good(lambda folder, rng: None),
    "with something beside": good(lambda folder, rng: (folder / "notes.txt").write_text("mine")),
    "with something else in its index": good(put(["remark"], {"by": "me"})),
    "with an index in one line": good(index(lambda content: None)),
}
