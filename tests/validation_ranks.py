"""What a rank of several does in a validation of given errors: importable when spawned."""

import torch

from bsa_lightning.data.order import PADDING, validation_batches
from bsa_lightning.diffusion.losses import Errors
from bsa_lightning.distillation.clip_errors import ClipErrors
from bsa_lightning.distillation.validation import ValidationErrors, WeightedMean


def values_of(num_clips):
    """Weight, trajectory error, distillation error and SNR of each clip; some bins of SNR have few."""
    generator = torch.Generator().manual_seed(num_clips)
    weight, distance, error, spread = torch.rand(4, num_clips, generator=generator)
    return {"weight": 1 + weight, "distance": distance, "error": error, "snr": 10 ** (3 * spread - 1.5)}


def add(errors, values, counts=None):
    errors.update(Errors(values["weight"], values["error"], values["snr"]), distance=values["distance"], counts=counts)


def validated(num_clips, *, batch_size, rank=0, world_size=1):
    """The errors of one rank; what only fills a batch has a value that would show."""
    errors, values = ValidationErrors(), values_of(num_clips)
    for batch in validation_batches(num_clips, batch_size=batch_size, rank=rank, world_size=world_size):
        index = torch.tensor(batch)
        counts = index != PADDING
        found = {name: torch.where(counts, value[index], 1e6) for name, value in values.items()}
        add(errors, found, counts)
    return errors


def validate_rank(rank, world_size, folder, cases):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    found = [validated(num, batch_size=size, rank=rank, world_size=world_size).compute() for num, size in cases]
    mean = WeightedMean()
    for value, weight in [(3.0, 2), (5.0, 1)] if rank == 0 else [(1.0, 2), (1e6, 0)]:
        mean.update(torch.tensor(value), torch.tensor(weight))
    found.append(mean.compute())
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def collect_rank(rank, world_size, folder):
    """Collects the errors of three clips on two ranks, each the number of its clip."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    errors, index = ClipErrors(), torch.tensor([[2, 0], [1, PADDING]][rank])
    errors.update(index, index.float(), index != PADDING)
    torch.save(errors.compute(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
