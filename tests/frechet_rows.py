"""Rows for the Frechet tests, and what one of two processes does with its half: importable by a spawned process."""

import torch

from bsa_lightning.evaluation.frechet import FrechetDistance


def rows(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ torch.randn(d, d, generator=generator).double()


def rank_of_two(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    metric = FrechetDistance(4)
    metric.update(rows(50, 4)[rank::2], reference=True)
    metric.update(rows(61, 4, 1)[rank::2])
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
