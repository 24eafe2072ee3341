"""A whole ladder in seconds, for tests."""

import functools

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from bsa_lightning.data.datamodule import AudioCapsLatents, Prepared
from bsa_lightning.diffusion.weighting import BSA
from bsa_lightning.distillation.draws import Draws, draw
from bsa_lightning.distillation.guidance_modes import Baked
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.training.bad_updates import BadUpdates


def module_of(teacher_folder, **settings):
    defaults = {
        "plan": Plan(8, 2, 4),
        "weighting": BSA(),
        "guidance": Baked(2.0),
        "teacher": str(teacher_folder),
        "optimizer": functools.partial(torch.optim.Adam, lr=1e-3),
    }
    return ProgressiveDistillation(**defaults | settings)


def draw_in_halves(module, told):
    """Draws each half of a batch as the process or micro-batch that it stands for: ``told(half)`` says which."""

    def both(batch, step, micro_batch):
        which = {"step": step, "micro_batch": micro_batch, "rank": 0}
        halves = [
            draw(seed=0, latents=latents, caption_dropout=0.1, **which | told(half))
            for half, latents in enumerate(batch.posterior.mean.chunk(2))
        ]
        return Draws(*(torch.cat(parts) for parts in list(zip(*halves, strict=True))[:-1]), seed=halves[0].seed)

    module._draw = both


def data_of(latents_folder, **settings):
    store = Prepared(str(latents_folder))
    return AudioCapsLatents(store, store, **{"batch_size": 4, "num_val_clips": 4} | settings)


def trainer_of(run, *callbacks, **settings):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": -1,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "default_root_dir": run,
    }
    checkpoint = ModelCheckpoint(run / "checkpoints", monitor=None, save_top_k=0, save_last=True, every_n_train_steps=1)
    guard = [] if any(isinstance(callback, BadUpdates) for callback in callbacks) else [BadUpdates()]
    return Trainer(callbacks=[*guard, *callbacks, checkpoint], **defaults | settings)


class Watch(Callback):
    """Calls a function after every batch."""

    def __init__(self, function):
        self.function = function

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.function(trainer, pl_module, batch)


class StopAt(Callback):
    """Dies after an update, as a lost machine does: nothing of Lightning's own clean-up runs."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.global_step == self.step:
            raise KeyboardInterrupt
