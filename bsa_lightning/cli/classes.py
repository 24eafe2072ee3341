"""The classes that a configuration may name by their bare names (``class_path: BSA``)."""

from __future__ import annotations

import importlib

from bsa_lightning.common.light_imports import light_imports

MODULES = (
    "bsa_lightning.diffusion.weighting",
    "bsa_lightning.data.captions",
    "bsa_lightning.data.captioned_folder",
    "bsa_lightning.data.clip_list",
    "bsa_lightning.data.hugging_face",
    "bsa_lightning.data.tar_shards",
    "bsa_lightning.data.soundscapes",
    "bsa_lightning.data.teacher_samples",
    "bsa_lightning.data.prepared_sound",
    "bsa_lightning.data.datamodule",
    "bsa_lightning.training.bad_updates",
    "bsa_lightning.models.lora",
    "bsa_lightning.distillation.denoising",
    "bsa_lightning.distillation.guidance_modes",
    "bsa_lightning.distillation.methods",
    "bsa_lightning.distillation.module",
    "bsa_lightning.evaluation.embeddings.reading",
    "bsa_lightning.evaluation.reference",
    "bsa_lightning.generation.samplers",
    "bsa_lightning.evaluation.embeddings.log_mel",
    "bsa_lightning.evaluation.embeddings.vggish",
    "bsa_lightning.evaluation.embeddings.pann",
    "bsa_lightning.evaluation.embeddings.clap",
    "bsa_lightning.evaluation.embeddings.yamnet",
    "bsa_lightning.evaluation.embeddings.encodec",
    "bsa_lightning.evaluation.embeddings.laion_clap",
    "bsa_lightning.evaluation.embeddings.soundscape_listener",
    "bsa_lightning.generation.predict",
)


def register() -> None:
    """Imports them: jsonargparse finds a bare name among the subclasses that exist."""
    with light_imports():
        for name in MODULES:
            importlib.import_module(name)
