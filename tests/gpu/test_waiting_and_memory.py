"""A training step waits for the device no more often than is argued here, and needs the memory that is planned."""

import functools
import warnings
from contextlib import contextmanager

import pytest
import torch
from ladder import data_of, module_of, trainer_of
from lightning.pytorch import Callback, Trainer
from no_float64 import NoFloat64
from places import trainer_on
from toy_clips import ToyClips

from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.distillation.cost import cost
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import without_weights
from bsa_lightning.training.bad_updates import BadUpdates

MODES = {"outside": Outside(2.0), "baked": Baked(2.0), "embedded": Embedded(2.0)}
ARGUED = 2
"""Of an update: ``BadUpdates`` reads the norm of the gradient before weights are changed, to leave a bad one out, and
Lightning reads the loss for the progress bar, once the update is on its way."""


class Waits(Callback):
    """Notes, update by update, where the CPU waits for the device, from one batch to the next.

    Args:
        new: returns the places since it was called last.
    """

    def __init__(self, new):
        self.new, self.seen = new, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(self.new())


@pytest.fixture
def waits(device):
    if device.type == "cuda":
        with cuda_waits() as new:
            yield Waits(new)
    else:
        from simulated_device import new_waits

        yield Waits(new_waits)


@contextmanager
def cuda_waits():
    torch.set_warn_always(True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

        def new():
            found = [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
            caught.clear()
            return found

        yield new
    torch.cuda.set_sync_debug_mode("default")
    torch.set_warn_always(False)


@pytest.mark.parametrize("mode", MODES)
def test_an_update_waits_for_the_device_twice(mode, device, waits, teacher_folder, latents_folder, tmp_path):
    module = module_of(teacher_folder, guidance=MODES[mode], plan=Plan(8, 4, 7), ema_decay=0.5)
    Trainer(
        **trainer_on(device.type), callbacks=[BadUpdates(), waits], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, max_epochs=-1, use_distributed_sampler=False,
        default_root_dir=tmp_path,
    ).fit(module, data_of(latents_folder))  # fmt: skip
    counts = [len(places) for places in waits.seen[2:6]]
    assert 0 < min(counts) <= max(counts) <= ARGUED, waits.seen[5]


class Float64(Callback):
    """Has every update run where float64 on the device is an error."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._mode = NoFloat64()
        self._mode.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._mode.__exit__(None, None, None)


@pytest.mark.parametrize("mode", MODES)
def test_an_update_makes_no_float64_on_the_device(mode, device, teacher_folder, latents_folder, tmp_path):
    module = module_of(teacher_folder, guidance=MODES[mode], plan=Plan(8, 4, 3), ema_decay=0.5)
    trainer_of(tmp_path, Float64(), **trainer_on(device.type)).fit(module, data_of(latents_folder))
    assert module.global_step == 3


class Peak(Callback):
    """The most bytes that live at once on the device during the last update."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.cuda.reset_peak_memory_stats()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.bytes = torch.cuda.max_memory_allocated()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_peak_is_the_planned_one(precision, cuda, latents_folder, teacher_folder, tmp_path):
    """On the built-in teacher, in batches so large that activations are most of it."""
    adam = functools.partial(torch.optim.Adam, lr=1e-5)
    settings = {"plan": Plan(4, 2, 3), "guidance": Baked(2.0), "optimizer": adam}
    size = 96
    prepare_folder(ToyClips(2 * size), tmp_path / "latents", "tiny", batch_size=32, shard_size=size)
    before, peak = torch.cuda.memory_allocated(), Peak()
    module = module_of("tiny", **settings)
    trainer = trainer_of(tmp_path / "run", peak, **trainer_on(cuda.type), precision=precision)
    trainer.fit(module, data_of(tmp_path / "latents", batch_size=size))
    with without_weights():
        planned = cost(module_of("tiny", **settings), batch_size=size, precision=precision, accumulate=1)
    assert peak.bytes - before == pytest.approx(planned.total, rel=0.1), planned
