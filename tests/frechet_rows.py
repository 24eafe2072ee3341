"""Rows for the tests of distances, and what one of several processes does with its share: importable when spawned."""

import torch

from bsa_lightning.evaluation.embeddings.base import Features
from bsa_lightning.evaluation.row_store import RowStore


def rows(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ torch.randn(d, d, generator=generator).double()


def features(clips, seed=0, *, logits=False):
    """Two rows of four numbers a clip, and five logits: of the clip's number alone."""
    made = [rows(2, 4, 100 * seed + clip) for clip in clips]
    classes = torch.stack([rows(1, 5, 100 * seed + clip)[0] for clip in clips]) if logits else None
    return Features(torch.stack(made).float(), None if classes is None else classes.float())


def store_of(clips, seed=0, *, batch_size=3, logits=False):
    store = RowStore(4)
    for i in range(0, len(clips), batch_size):
        store.update(features(clips[i : i + batch_size], seed, logits=logits), clips[i : i + batch_size])
    return store


def rank_of_several(rank, world_size, num_clips, folder):
    """A rank's share, padded with repeated clips as a sampler does; with fewer clips than ranks, one has none."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    share = list(range(rank, num_clips, world_size))
    if share and num_clips > world_size and len(share) < -(-num_clips // world_size):
        share.append(rank)
    torch.save(store_of(share, logits=True).compute().tensors(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
