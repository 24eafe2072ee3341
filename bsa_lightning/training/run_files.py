"""The names of the files of a run, and of the settings that a run must keep; needs no Lightning, for reports."""

from __future__ import annotations

import re

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
LAST_ERROR = "last-error.json"
"""Why a run has stopped or failed; removed when the run goes on."""
OUTPUTS = (
    "checkpoints", "rounds", "samples", "model", "student", "report", "rows", "metrics.csv", "scores.csv",
    "scores.json", "differences.csv", LAST_ERROR, CONFIG, ENVIRONMENT,
)  # fmt: skip
"""The files and folders that a run writes, in the order in which ``--overwrite true`` removes them.

Checkpoints go first, and the files that mark the folder as a run's go last: if the removal is interrupted, nothing can
be resumed from what is left, and it can still be replaced. W&B keeps its own runs apart in ``wandb/``."""

REPORT_FILES = (
    "index.html", "table.md", "table.csv", "differences.csv", "figure.png", "figure.svg", "snr.png", "snr.svg",
)  # fmt: skip
"""The files that a report writes, into ``report/`` unless another folder is named."""

TRAINED_BY_TRAINER = ("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
"""Settings of the trainer that change students."""
TRAINED_BY = ("model.", "data.", "seed_everything", *(f"trainer.{name}" for name in TRAINED_BY_TRAINER))
"""Prefixes of the settings that decide what the students become, which a resumed run must keep."""
VALIDATED_BY = ("trainer.val_check_interval", "trainer.check_val_every_n_epoch", "trainer.limit_val_batches")
"""Further settings that a resumed run must keep if validations decide on the length of a round."""
HARMLESS = re.compile(r"data\.init_args\.(train|val|num_workers)|model\.init_args\.teacher$")
"""Settings that may change all the same: places of data and models, whose content is checked by digests."""

INSIDE = {
    "checkpoints": ("last*.ckpt", "*=*.ckpt"),  # of this project, and of Lightning's ModelCheckpoint
    "rounds": ("[0-9]*-[0-9]*steps",),
    "samples": ("captions.json", "[0-9]*-*.wav", "*/[0-9]*-*.wav"),
    "report": REPORT_FILES,
    "rows": ("*.safetensors",),
}
"""The files that a run writes into its folders, so that other files in them are not removed."""
