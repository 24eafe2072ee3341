"""A run that dies anywhere and goes on ends like one that nobody touched, its metrics row by row."""

import contextlib
import sys

import pytest
import torch

from bsa_lightning.cli import (
    classes,
    fit,  # noqa: F401 - its log handlers must not hold a captured stream
)
from bsa_lightning.cli.main import main

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


def fit_toy(folder, settings, *words):
    folder.parent.mkdir(exist_ok=True)
    config = folder.with_suffix(".yaml")
    config.write_text(CONFIG.format(**settings))
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
        patch.setattr(classes, "MODULES", ("bsa_lightning.diffusion.weighting",))
        patch.setattr(sys, "argv", ["lightning", "fit", "--config", str(config), "--run", str(folder), *words])
        main()
    return folder


@pytest.fixture(
    scope="module",
    params=[{"accumulate": 1, "epochs": "null"}, {"accumulate": 1, "epochs": 1}, {"accumulate": 2, "epochs": 1}],
    ids=str,
)
def settings(request):
    return request.param


@pytest.fixture(scope="module")
def untouched(settings, tmp_path_factory):
    return fit_toy(tmp_path_factory.mktemp("untouched") / "run", settings)


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
def test_nothing_is_lost_or_said_twice(untouched, settings, step, hook, tmp_path):
    death = f"[{{class_path: toys.Dies, init_args: {{step: {step}, hook: {hook}}}}}]"
    run = fit_toy(tmp_path / "run", settings, "--trainer.callbacks", death)
    metrics = (untouched / "metrics.csv").read_text()
    assert not (run / "metrics.csv").is_file() or (run / "metrics.csv").read_text() != metrics
    fit_toy(run, settings, "--ckpt_path", "last")
    assert (run / "metrics.csv").read_text() == metrics
    theirs, ours = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (untouched, run))
    for part in ("state_dict", "optimizer_states", "loops", "global_step"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)


def test_a_checkpoint_of_lightnings_own_is_no_place_to_go_on_from(settings, tmp_path, capsys):
    callback = "{class_path: ModelCheckpoint, init_args: {every_n_train_steps: 2, save_top_k: -1, monitor: null}}"
    words = ("--trainer.callbacks", f"[{callback}]")
    run = fit_toy(tmp_path / "run", settings, *words)
    (own,) = (run / "checkpoints").glob("*step=4.ckpt")
    before = {path: path.read_bytes() for path in (run / "metrics.csv", run / "checkpoints" / "last.ckpt")}
    capsys.readouterr()
    fit_toy(run, settings, *words, "--ckpt_path", str(own))
    assert "is one of ModelCheckpoint, from which a run does not go on as it would have" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
