"""A module and a data module that fit in milliseconds, for tests of the command line."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.weighting import Weighting

TOY_CONFIG = """
trainer: {max_steps: 6, accelerator: cpu, enable_progress_bar: false, log_every_n_steps: 1}
model:
  class_path: toys.ToyModule
  init_args:
    weighting: BSA
    seed: ${seed_everything}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
data: {class_path: toys.ToyData, init_args: {seed: "${seed_everything}"}}
wandb: disabled
checkpoint_every: 4
"""


@dataclass(frozen=True)
class Steps:
    num_steps: int = 4

    def __post_init__(self):
        if self.num_steps % 2:
            raise UserError(f"num_steps is {self.num_steps}, which cannot be halved; use an even number")


class ToyModule(LightningModule):
    def __init__(
        self,
        weighting: Weighting,
        steps: Steps = Steps(),
        optimizer: Callable[[Iterable], Optimizer] = torch.optim.SGD,
        seed: int = 0,
        width: int = 2,
    ) -> None:
        super().__init__()
        if width < 1:
            raise UserError(f"width is {width}, but must be at least 1")
        self.weighting = weighting
        self.steps = steps
        self.optimizer = optimizer
        self.seed = seed
        self.net = torch.nn.Linear(2, width)

    def training_step(self, batch, batch_idx):
        loss = self.net(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.net(batch).square().mean())

    test_step = validation_step

    def configure_optimizers(self):
        return self.optimizer(self.net.parameters())


class ToyData(LightningDataModule):
    def __init__(self, num_items: int = 8, seed: int = 0) -> None:
        super().__init__()
        self.num_items = num_items

    def train_dataloader(self):
        return DataLoader(torch.ones(self.num_items, 2), batch_size=4)

    val_dataloader = test_dataloader = train_dataloader


class Dies(Callback):
    """Ends the process' run at a step, in the middle of things: nothing of Lightning's own clean-up runs."""

    def __init__(self, step: int, hook: str) -> None:
        self.step = step
        setattr(self, hook, self._die)

    def _die(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


class TellProcess(Callback):
    """Each rank writes down its process when training is under way."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            Path(f"rank-{trainer.global_rank}.partial").write_text(str(os.getpid()))
            Path(f"rank-{trainer.global_rank}.partial").replace(f"rank-{trainer.global_rank}")
