"""A run that dies anywhere and goes on ends like one that nobody touched, its metrics row by row."""

import sys

import pytest
import torch

from bsa_lightning.commands import classes, fit  # noqa: F401 - its log handlers must not hold a captured stream
from bsa_lightning.commands.main import main

CONFIG = """
trainer:
  max_steps: 10
  accelerator: cpu
  enable_progress_bar: false
  log_every_n_steps: 1
  val_check_interval: 2
  limit_val_batches: 2
  accumulate_grad_batches: {accumulate}
  check_val_every_n_epoch: {epochs}
model:
  class_path: toys.ToyModule
  init_args: {{weighting: BSA, optimizer: {{class_path: torch.optim.Adam, init_args: {{lr: 0.1}}}}}}
data: {{class_path: toys.ToyData, init_args: {{num_items: 16}}}}
wandb: disabled
checkpoint_every: 2
"""


@pytest.fixture
def fit_toy(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(classes, "MODULES", ("bsa_lightning.diffusion.weighting",))

    def run(name, settings, *words):
        (tmp_path / "toy.yaml").write_text(CONFIG.format(**settings))
        words = ["fit", "--config", str(tmp_path / "toy.yaml"), "--run", str(tmp_path / name), *words]
        monkeypatch.setattr(sys, "argv", ["lightning", *words])
        try:
            main()
        except SystemExit:
            return tmp_path / name
        return tmp_path / name

    return run


@pytest.mark.parametrize(
    "settings",
    [{"accumulate": 1, "epochs": "null"}, {"accumulate": 1, "epochs": 1}, {"accumulate": 2, "epochs": 1}],
    ids=str,
)
@pytest.mark.parametrize(
    ("step", "hook"),
    [
        (0, "on_train_batch_start"),
        (2, "on_train_batch_start"),
        (3, "on_train_batch_end"),
        (4, "on_train_batch_end"),
        (4, "on_validation_batch_end"),
        (4, "on_validation_end"),
        (5, "on_before_optimizer_step"),
        (8, "on_train_epoch_start"),
    ],
)
def test_nothing_is_lost_or_said_twice(fit_toy, settings, step, hook):
    untouched = fit_toy("untouched", settings)
    death = f"[{{class_path: toys.Dies, init_args: {{step: {step}, hook: {hook}}}}}]"
    run = fit_toy("run", settings, "--trainer.callbacks", death)
    metrics = (untouched / "metrics.csv").read_text()
    assert not (run / "metrics.csv").is_file() or (run / "metrics.csv").read_text() != metrics
    fit_toy("run", settings, "--ckpt_path", "last")
    assert (run / "metrics.csv").read_text() == metrics
    theirs, ours = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (untouched, run))
    for part in ("state_dict", "optimizer_states", "loops", "global_step"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)
