"""Damage to a whole model folder, by name and seed: what must be refused, and what must not matter.

Each function changes a copy of a good folder of any family, whose weights are in safetensors. ``load_model`` must
raise UserError after one of ``FAULTS``, and read the same model after one of ``HARMLESS``.
"""

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bsa_lightning.models import provenance

Damage = Callable[[Path, random.Random], None]


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | changes))


def _weights(edit: Callable[[dict[str, torch.Tensor], str, random.Random], None]) -> Damage:
    """Edits the named tensors of one file; one in floating point is chosen."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = rng.choice(weight_files(folder))
        tensors = load_file(path)
        edit(tensors, rng.choice(sorted(name for name in tensors if tensors[name].is_floating_point())), rng)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})

    return damage


def _value(number: float) -> Damage:
    def edit(tensors, name, rng):
        tensors[name].view(-1)[rng.randrange(tensors[name].numel())] = number

    return _weights(edit)


def _file(write: Callable[[Path, random.Random], None], pattern: str = "*/*.safetensors") -> Damage:
    return lambda folder, rng: write(rng.choice(sorted(folder.glob(pattern))), rng)


def _json(pattern: str, **changes: object) -> Damage:
    return _file(lambda path, _: change_json(path, **changes), pattern)


def _provenance(**changes: object) -> Damage:
    return lambda folder, _: change_json(folder / provenance.PROVENANCE, **changes)


def _cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, len(content))])


def _as_folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _as_pipe(path: Path, _: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _as_dead_link(path: Path, _: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _written(damage: Damage) -> Damage:
    """The damage to a folder that carries digests of its files."""

    def later(folder: Path, rng: random.Random) -> None:
        provenance.write(folder, provenance.read(folder))
        damage(folder, rng)

    return later


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _other_vocabulary(path: Path, _: random.Random) -> None:
    content = json.loads(path.read_text())
    special = content["added_tokens"]
    first = 1 + max(token["id"] for token in special)
    content["added_tokens"] += [{**special[0], "id": first + i, "content": f"<beyond {i}>"} for i in range(100)]
    path.write_text(json.dumps(content))


def _no_pad_token(path: Path, _: random.Random) -> None:
    content = json.loads(path.read_text())
    del content["pad_token"]
    path.write_text(json.dumps(content | {"tokenizer_class": "PreTrainedTokenizerFast"}))


def _scheduler(**changes: object) -> Damage:
    """Changes a table's settings; where there is no table, what the network predicts."""

    def damage(folder: Path, _: random.Random) -> None:
        path = folder / "scheduler" / "scheduler_config.json"
        has_table = "beta_start" in json.loads(path.read_text())
        change_json(path, **(changes if has_table else {"prediction_type": "sample"}))

    return damage


_CONFIG = "[uvtplm]*/config.json"
"""Configurations of networks: unet, vae, vocoder, transformer, text_encoder, projection_model, language_model."""

FAULTS: dict[str, Damage] = {
    "a weight is missing": _weights(lambda tensors, name, _: tensors.pop(name)),
    "a weight is left over": _weights(lambda tensors, _n, _r: tensors.update(other=torch.zeros(1))),
    "a weight has another name": _weights(lambda tensors, name, _: tensors.update({f"{name}_": tensors.pop(name)})),
    "a weight has another shape": _weights(
        lambda tensors, name, _: tensors.update({name: torch.zeros(*tensors[name].shape, 2)})
    ),
    "a weight is an integer": _weights(lambda tensors, name, _: tensors.update({name: tensors[name].to(torch.int8)})),
    "a weight is no number": _value(math.nan),
    "a weight is infinite": _value(-math.inf),
    "weights are cut short": _file(_cut),
    "weights are empty": _file(lambda path, _: path.write_bytes(b"")),
    "weights are of another format": _file(lambda path, rng: path.write_bytes(rng.randbytes(1000))),
    "weights are a pointer of git-lfs": _file(
        lambda path, _: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    ),
    "weights are a folder": _file(_as_folder),
    "weights are a pipe": _file(_as_pipe),
    "a configuration is a pipe": _file(_as_pipe, "[uvtplm]*/config.json"),
    "weights are a link to nowhere": _file(_as_dead_link),
    "weights are gone": _file(lambda path, _: path.unlink()),
    "weights are those of another part": lambda folder, rng: shutil.copy(*rng.sample(weight_files(folder), 2)),
    "an index of shards lists a file that is gone": _file(
        lambda path, _: (
            path.with_name(f"{path.name}.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}'),
            path.unlink(),
        )
    ),
    "a configuration is gone": _file(lambda path, _: path.unlink(), _CONFIG),
    "a configuration is cut short": _file(_cut, _CONFIG),
    "a configuration is a list": _file(lambda path, _: path.write_text("[]"), _CONFIG),
    "a configuration is empty": _file(lambda path, _: path.write_text("{}"), _CONFIG),
    "a configuration is a folder": _file(_as_folder, _CONFIG),
    "a configuration is of another class": _json(_CONFIG, _class_name="UNet1DModel", model_type="bert"),
    "a network has a vast layer": _json("[ut][nr]*/config.json", in_channels=10**9, io_channels=10**9),
    "the latent has no size": _json(
        "[ut][nr]*/config.json", sample_size="long", _sample_size="long", io_channels="long"
    ),
    "the scheduler is gone": lambda folder, _: shutil.rmtree(folder / "scheduler"),
    "the scheduler is of another kind": _json("scheduler/*.json", _class_name="ScoreSdeVeScheduler"),
    "the scheduler is empty": _file(lambda path, _: path.write_text("{}"), "scheduler/*.json"),
    "the prediction type is unknown": _json("scheduler/*.json", prediction_type="flow"),
    "the prediction type is a number": _json("scheduler/*.json", prediction_type=3),
    "a table without signal for eps": _scheduler(prediction_type="epsilon", rescale_betas_zero_snr=True),
    "a table without noise": _scheduler(beta_start=0.0),
    "a table beyond its range": _scheduler(beta_schedule="linear", beta_end=1.5),
    "a table of no numbers": _scheduler(beta_end=math.nan),
    "a table of no timesteps": _scheduler(num_train_timesteps=0),
    "a table of a text": _scheduler(num_train_timesteps="ten"),
    "a table of another schedule": _scheduler(beta_schedule="sideways"),
    "a tokenizer is gone": lambda folder, rng: shutil.rmtree(rng.choice(sorted(folder.glob("tokenizer*")))),
    "a tokenizer has no words": _file(lambda path, _: path.unlink(), "tokenizer*/tokenizer.json"),
    "a tokenizer is cut short": _file(_cut, "tokenizer*/tokenizer.json"),
    "a tokenizer is a list": _file(lambda path, _: path.write_text("[]"), "tokenizer*/tokenizer.json"),
    "a tokenizer is a pointer of git-lfs": _file(
        lambda path, _: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "tokenizer*/tokenizer.json"
    ),
    "a tokenizer knows more than its encoder": _file(_other_vocabulary, "tokenizer*/tokenizer.json"),
    "a tokenizer has no pad token": _file(_no_pad_token, "tokenizer*/tokenizer_config.json"),
    "a tokenizer has no room": _json("tokenizer*/tokenizer_config.json", model_max_length=0),
    "a tokenizer's length is a text": _json("tokenizer*/tokenizer_config.json", model_max_length="long"),
    "a tokenizer wants its code run": _json(
        "tokenizer*/tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Words", None]}, tokenizer_class="Words"
    ),
    "the index is gone": lambda folder, _: (folder / "model_index.json").unlink(),
    "the index is a list": lambda folder, _: (folder / "model_index.json").write_text("[]"),
    "the index is no text": lambda folder, _: (folder / "model_index.json").write_bytes(b"\xff\xfe\x00"),
    "the index is endless": lambda folder, _: (folder / "model_index.json").write_text("[" * 100_000),
    "the pipeline is unknown": _json("model_index.json", _class_name="StableDiffusionPipeline"),
    "the pipeline is a list": _json("model_index.json", _class_name=["TangoPipeline"]),
    "the provenance is cut short": lambda folder, _: (folder / provenance.PROVENANCE).write_text('{"num_steps": '),
    "the provenance is a folder": lambda folder, _: (
        (folder / provenance.PROVENANCE).unlink(missing_ok=True),
        (folder / provenance.PROVENANCE).mkdir(),
    ),
    "no steps": _provenance(num_steps=0),
    "steps are a text": _provenance(num_steps="ten"),
    "steps are a switch": _provenance(num_steps=True),
    "guidance is unknown": _provenance(guidance="sideways"),
    "guidance is embedded without an input": _provenance(guidance="embedded"),
    "a guidance scale below 0": _provenance(guidance_scale=-1),
    "a guidance scale that is no number": _provenance(guidance_scale=math.nan),
    "a guidance range of one number": _provenance(guidance_range=[1.0]),
    "a guidance range the wrong way round": _provenance(guidance_range=[3.0, 1.0]),
    "digests are a list": _provenance(files=[]),
    "a digest is none": _provenance(files={"vae/config.json": "0"}),
    "the digest is another": _provenance(sha256="0" * 64),
    "a written file has another bit": _written(_file(_flip, "*/*.*")),
    "a written file is gone": _written(_file(lambda path, _: path.unlink(), "*/*.*")),
    "a written part has a file more": _written(
        lambda folder, rng: (rng.choice(weight_files(folder)).parent / "adapter_config.json").write_text("{}")
    ),
    "a written folder has another digest": _written(_provenance(sha256="0" * 64)),
}


def _as_bin(folder: Path, rng: random.Random) -> None:
    """torch's own format in place of safetensors, as older folders have it."""
    path = rng.choice(weight_files(folder))
    torch.save(load_file(path), path.with_name({"model": "pytorch_model"}.get(path.stem, path.stem) + ".bin"))
    path.unlink()


def _sharded(folder: Path, rng: random.Random) -> None:
    """Two files and their index, as large networks are saved."""
    path = rng.choice(weight_files(folder))
    tensors = load_file(path)
    weight_map = {name: f"{path.stem}-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    for shard in set(weight_map.values()):
        held = {name: tensors[name] for name in tensors if weight_map[name] == shard}
        save_file(held, path.with_name(shard), {"format": "pt"})
    index = {"metadata": {"total_size": path.stat().st_size}, "weight_map": weight_map}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))
    path.unlink()


def _with_metadata(folder: Path, rng: random.Random) -> None:
    path = rng.choice(weight_files(folder))
    save_file(load_file(path), path, {"format": "pt", "note": str(rng.random())})


def _beside(name: str) -> Damage:
    def add(folder: Path, rng: random.Random) -> None:
        path = rng.choice([folder, *(file.parent for file in weight_files(folder))]) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(rng.randbytes(20))

    return add


def _as_links(folder: Path, rng: random.Random) -> None:
    """As the hub's cache has it: the files are elsewhere."""
    blobs = folder.with_name(f"{folder.name}-blobs-{rng.randrange(10**9)}")
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))


STRAY = ("README.md", ".DS_Store", ".git/config", "config.json~", "config.json.bak", "notes.txt", "old.txt")

HARMLESS: dict[str, Damage] = {
    "nothing": lambda _folder, _rng: None,
    "digests are written": _written(lambda _folder, _rng: None),
    "weights are torch's own": _as_bin,
    "weights are in shards": _sharded,
    "weights have other metadata": _with_metadata,
    "files are links": _as_links,
    "written files are links": _written(_as_links),
    "there is no provenance": lambda folder, _: (folder / provenance.PROVENANCE).unlink(missing_ok=True),
    **{f"there is a {name}": _beside(name) for name in STRAY},
    **{f"there is a {name} in a written folder": _written(_beside(name)) for name in STRAY},
}
