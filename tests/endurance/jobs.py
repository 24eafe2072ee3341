"""What is run, killed and run again: ladders and a teacher's training of a few seconds, and `prepare`."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tiny_model import write_model
from toy_clips import ToyClips

from bsa_lightning.data.prepare import prepare_folder

NUM_CLIPS = 26  # six whole batches of four an epoch, so that epochs end inside rounds, and a tail
CHECKPOINT_EVERY = 3  # divides no round's updates


class Bursts(ToyClips):
    """As `prepare` wants them: its command line asks for a type."""

    def __init__(self, num_clips: int) -> None:
        super().__init__(num_clips)


@dataclass(frozen=True)
class Job:
    """A command with its configuration.

    Args:
        command: "fit" or "prepare".
        config: of the command.
        earlier: a folder with another run, which the first start of this one is to replace.
    """

    command: str
    config: dict[str, Any]
    earlier: Path | None = None

    def write(self, folder: Path) -> None:
        """Makes ``folder`` with all that is there before the first start."""
        if self.earlier is None:
            folder.mkdir(parents=True)
        else:
            shutil.copytree(self.earlier, folder)
        (folder / "job.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))

    def words(self, *, resumed: bool, ranks: int) -> list[str]:
        """The command line, run inside the folder."""
        words = ["lightning", self.command, "--config", "job.yaml"]
        if self.command != "fit":
            return words
        words += ["--run", "run", "--wandb", "disabled", "--checkpoint_every", str(CHECKPOINT_EVERY)]
        words += ["--trainer.devices", str(ranks)] + (["--trainer.strategy", "ddp"] if ranks > 1 else [])
        if resumed:
            return [*words, "--ckpt_path", "last"]
        return words if self.earlier is None else [*words, "--overwrite", "true"]


def write_inputs(folder: Path) -> None:
    """The first teacher and the latents that all jobs share."""
    write_model(folder / "teacher")
    prepare_folder(ToyClips(NUM_CLIPS), folder / "latents", str(folder / "teacher"), batch_size=4, shard_size=9)


def earlier(inputs: Path) -> Job:
    """A run of other settings, to be made in ``inputs / "earlier"`` before those that replace it."""
    return _ladder(inputs, "Outside")


def jobs(inputs: Path) -> dict[str, Job]:
    """All jobs by name; ``inputs`` is what :func:`write_inputs` made."""
    baked = _ladder(inputs, "Baked", prepares=True)
    adaptive = partial(_ladder, inputs, updates=[10, 5, 10], limits={"most_updates": [14, 7, 14]}, lr=1.5e-2)
    return {
        "baked": baked,
        "embedded": _ladder(inputs, "Embedded"),
        "outside": _ladder(inputs, "Outside", accumulate=2),
        "lora": adaptive("Embedded", adapter={"class_path": "LoRA", "init_args": {"rank": 2}}, lr=0.03),
        "patience": _ladder(inputs, "Baked", limits={"patience": 1}),
        "adaptive": adaptive("Baked"),
        "denoising": _denoising(inputs),
        "prepare": _prepare(inputs),
        "overwrite": replace(_ladder(inputs, "Baked"), earlier=inputs / "earlier"),
    }


def _ladder(
    inputs: Path,
    guidance: str,
    *,
    prepares: bool = False,
    accumulate: int = 1,
    adapter: dict[str, Any] | None = None,
    updates: Sequence[int] = (5, 4, 5),
    limits: Mapping[str, Any] | None = None,
    lr: float = 1e-3,
) -> Job:
    plan = {"start_steps": 8, "end_steps": 1, "updates": list(updates), **(limits or {})}
    model = {
        "class_path": "ProgressiveDistillation",
        "init_args": {
            "teacher": str(inputs / "teacher"),
            "plan": plan,
            "weighting": "BSA",
            "guidance": {"class_path": guidance, "init_args": {"scale": 2.0}},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": lr}},
            "ema_decay": 0.5,
            "adapter": adapter,
        },
    }
    scoring = {"clips": _clips(4), "seeds": [0], "batch_size": 3, "num_samples": 2}
    trainer = {"accumulate_grad_batches": accumulate}
    return _fit(inputs, model, trainer, scoring, prepares=prepares)


def _denoising(inputs: Path) -> Job:
    model = {"class_path": "Denoising", "init_args": {"teacher": str(inputs / "teacher"), "ema_decay": 0.5}}
    return _fit(inputs, model, {"max_steps": 10}, {})


def _fit(
    inputs: Path, model: dict[str, Any], trainer: dict[str, Any], scoring: dict[str, Any], *, prepares: bool = False
) -> Job:
    store: dict[str, Any] = {"folder": str(inputs / "latents")}
    if prepares:
        store = {"folder": "data", "clips": _clips(NUM_CLIPS), "teacher": str(inputs / "teacher")}
    data = {
        "class_path": "AudioCapsLatents",
        "init_args": {"train": store, "val": {"folder": store["folder"]}, "batch_size": 4, "num_val_clips": 5},
    }
    common = {
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 2,
    }
    return Job("fit", {"model": model, "data": data, "trainer": common | trainer, "scoring": scoring})


def _prepare(inputs: Path) -> Job:
    config = {
        "clips": _clips(NUM_CLIPS),
        "out": "data",
        "teacher": str(inputs / "teacher"),
        "shard_size": 7,
        "batch_size": 4,
    }
    return Job("prepare", config)


def _clips(num_clips: int) -> dict[str, Any]:
    return {"class_path": "endurance.jobs.Bursts", "init_args": {"num_clips": num_clips}}
