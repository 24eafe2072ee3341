"""The classes that a configuration may name by their bare names (``class_path: BSA``)."""

from __future__ import annotations

import importlib

MODULES = (
    "bsa_lightning.diffusion.weighting",
    "bsa_lightning.data.captions",
    "bsa_lightning.data.soundscapes",
    "bsa_lightning.data.datamodule",
    "bsa_lightning.distillation.bad_updates",
    "bsa_lightning.distillation.denoising",
    "bsa_lightning.distillation.guidance",
    "bsa_lightning.distillation.module",
    "bsa_lightning.distillation.promotion",
    "bsa_lightning.evaluation.callback",
    "bsa_lightning.evaluation.reading",
    "bsa_lightning.evaluation.reference",
    "bsa_lightning.evaluation.samplers",
    "bsa_lightning.evaluation.embeddings",
    "bsa_lightning.evaluation.vggish",
    "bsa_lightning.evaluation.pann",
    "bsa_lightning.evaluation.clap",
    "bsa_lightning.evaluation.soundscape_listener",
    "bsa_lightning.commands.predict",
)


def register() -> None:
    """Imports them: jsonargparse finds a bare name among the subclasses that exist."""
    for name in MODULES:
        importlib.import_module(name)
