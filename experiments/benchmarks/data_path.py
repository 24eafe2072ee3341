"""Reading prepared latents in batches, over reading the same bytes bare."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

from bsa_lightning.data.datamodule import AudioCapsLatents, Prepared
from bsa_lightning.data.latents import EncodedClip, write_index, write_shard
from bsa_lightning.models.conditioning import Conditioning
from experiments.benchmarks.measure import Row, seconds

CLIPS, SHARDS, BATCH_SIZE, REPEATS = 1024, 4, 16, 5
LATENT, TOKENS, WIDTH = (8, 256, 16), 77, 1024
"""Tango's sizes: 10.24 s, and the longest captions."""


def clips(first: int, num: int) -> Iterator[EncodedClip]:
    """Random numbers; what is read is not looked at."""
    generator = torch.Generator().manual_seed(first)
    for _ in range(first, first + num):
        length = int(torch.randint(8, TOKENS + 1, (), generator=generator))
        states = {"states": torch.randn(1, length, WIDTH, generator=generator)}
        mean, std = torch.randn(2, *LATENT, generator=generator)
        yield EncodedClip(mean, std.abs(), ["rain"], [Conditioning.unpadded(states, sequences=["states"])])


def write_store(folder: Path) -> None:
    """A store of random clips."""
    folder.mkdir()
    share = CLIPS // SHARDS
    shards = []
    for n in range(SHARDS):
        ids = [str(i) for i in range(n * share, (n + 1) * share)]
        shards.append(write_shard(folder / f"shard-{n:05d}.safetensors", list(clips(n * share, share)), ids=ids))
    null = Conditioning.unpadded({"states": torch.zeros(1, 1, WIDTH)}, sequences=["states"])
    request = {
        "clips": "",
        "codec": "",
        "conditioner": "",
        "sequences": ["states"],
        "conditioning": ["states"],
        "num_clips": CLIPS,
    }
    write_index(folder, request=request, shards=shards, null=null)


def rows() -> list[Row]:
    """Items a second of the loader over rows of the memory map in the same order, with no batch made of them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        write_store(folder)
        data = AudioCapsLatents(Prepared(str(folder)), batch_size=BATCH_SIZE)
        data.setup("fit")
        order = [i for batch in data.train_dataloader() for i in batch.index.tolist()]
        shards = []
        for path in sorted(folder.glob("shard-*.safetensors")):
            with safe_open(path, framework="pt") as file:
                shards.append({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        share = CLIPS // SHARDS

        def bare() -> None:
            for i in order:
                shard, row = shards[i // share], i % share
                first = int(shard["states.ends"][row - 1]) if row else 0
                for part in (shard["mean"][row], shard["std"][row], shard["states"][first : shard["states.ends"][row]]):
                    part.float()

        def ours() -> None:
            for _ in data.train_dataloader():
                pass

        bare()
        ratios = [seconds(bare) / seconds(ours) for _ in range(REPEATS)]
    return [Row("clips a second from a store of Tango's sizes", ratios, "the same rows of the memory map, bare")]
