"""The files of a run folder by name, and the settings that a run must keep. Imports nothing: reports read it, too."""

from __future__ import annotations

import re

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
OUTPUTS = (
    "checkpoints", "rounds", "samples", "model", "report", "rows", "metrics.csv", "scores.csv", "scores.json",
    "differences.csv", CONFIG, ENVIRONMENT,
)  # fmt: skip
"""What a run writes, and ``--overwrite true`` removes, in an order that lets no one mistake what is left for a run:
nothing can go on from it, and it can be replaced. W&B keeps its own runs apart in ``wandb/``."""


REPORT_FILES = (
    "index.html", "table.md", "table.csv", "differences.csv", "figure.png", "figure.svg", "snr.png", "snr.svg",
)  # fmt: skip
"""What a report writes, into ``report/`` unless another folder is named."""

TRAINED_BY_TRAINER = ("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
"""Settings of the trainer that change students."""
TRAINED_BY = ("model.", "data.", "seed_everything", *(f"trainer.{name}" for name in TRAINED_BY_TRAINER))
"""What a run must be gone on with: settings that decide what its students become."""
VALIDATED_BY = ("trainer.val_check_interval", "trainer.check_val_every_n_epoch", "trainer.limit_val_batches")
"""Likewise where validations decide when a round ends."""
HARMLESS = re.compile(r"data\.init_args\.(train|val|num_workers)|model\.init_args\.teacher$")
"""What may change all the same: where things are, which digests hold to what they were."""


INSIDE = {
    "checkpoints": ("last*.ckpt", "*=*.ckpt"),  # ours, and those that ModelCheckpoint names
    "rounds": ("[0-9]*-[0-9]*steps",),
    "samples": ("captions.json", "[0-9]*-*.wav", "*/[0-9]*-*.wav"),
    "report": REPORT_FILES,
    "rows": ("*.safetensors",),
}
"""What a run writes into these folders, so that nothing else in them goes with it."""
