"""Progressive distillation of text-to-audio diffusion models, on PyTorch Lightning.

``load_model`` makes sound, ``distill`` makes a student, ``evaluate``, ``report`` and ``score`` say how good it is; the
classes are those that a configuration names. Importing this package is quick: each name is imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bsa_lightning.api import Report, distill, evaluate, load_model, report, sample, score
    from bsa_lightning.cli.export import export
    from bsa_lightning.common.errors import UserError
    from bsa_lightning.data.captioned_folder import CaptionedFolder
    from bsa_lightning.data.captions import AudioCapsManifest, TangoManifest
    from bsa_lightning.data.clip_list import ClipList
    from bsa_lightning.data.clips import Clips
    from bsa_lightning.data.datamodule import AudioCapsLatents, Prepared
    from bsa_lightning.data.hugging_face import HuggingFaceDataset
    from bsa_lightning.data.prepared_sound import PreparedSound
    from bsa_lightning.data.recordings import Columns
    from bsa_lightning.data.soundscapes import Soundscapes
    from bsa_lightning.data.tar_shards import WebDataset
    from bsa_lightning.data.teacher_samples import TeacherSamples
    from bsa_lightning.diffusion.flow import LogitNormalTimes
    from bsa_lightning.diffusion.weighting import (
        BSA,
        SNR,
        FlowBSA,
        MinSNR,
        OwnWeighting,
        SNRPlusOne,
        Tango,
        TruncatedSNR,
        Uniform,
        VelocityMSE,
        Weighting,
    )
    from bsa_lightning.distillation.denoising import Denoising
    from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
    from bsa_lightning.distillation.methods import Method, Progressive, SegmentedConsistency
    from bsa_lightning.distillation.module import ProgressiveDistillation
    from bsa_lightning.distillation.rounds import Plan
    from bsa_lightning.evaluation.embeddings.base import Embedding
    from bsa_lightning.evaluation.embeddings.clap import CLAP
    from bsa_lightning.evaluation.embeddings.encodec import EnCodec
    from bsa_lightning.evaluation.embeddings.laion_clap import LaionCLAP
    from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
    from bsa_lightning.evaluation.embeddings.pann import PANN
    from bsa_lightning.evaluation.embeddings.reading import (
        AsAudioldmEval,
        AsPublishedTango,
        AsPublishedTangoFAD,
        Plain,
        Reading,
    )
    from bsa_lightning.evaluation.embeddings.soundscape_listener import SoundscapeListener
    from bsa_lightning.evaluation.embeddings.vggish import VGGish
    from bsa_lightning.evaluation.embeddings.yamnet import YAMNet
    from bsa_lightning.evaluation.reference import TangoTestSet
    from bsa_lightning.evaluation.scoring import Scoring
    from bsa_lightning.evaluation.scoring_settings import ScoringSettings
    from bsa_lightning.generation.samplers import DDIM, DPMSolver, Renoising, Sampler
    from bsa_lightning.generation.text_to_audio import Sound, TextToAudio
    from bsa_lightning.models.family import Family
    from bsa_lightning.models.lora import LoRA
    from bsa_lightning.models.registry import register_family
    from bsa_lightning.models.tango.verified_pipeline import TangoPipeline
    from bsa_lightning.training.bad_updates import BadUpdates
    from bsa_lightning.training.latent_module import NetworkOptions

_PLACES = {
    "api": (
        "Report",
        "distill",
        "evaluate",
        "load_model",
        "report",
        "sample",
        "score",
    ),
    "cli.export": ("export",),
    "common.errors": ("UserError",),
    "data.captioned_folder": ("CaptionedFolder",),
    "data.captions": (
        "AudioCapsManifest",
        "TangoManifest",
    ),
    "data.clip_list": ("ClipList",),
    "data.clips": ("Clips",),
    "data.datamodule": (
        "AudioCapsLatents",
        "Prepared",
    ),
    "data.hugging_face": ("HuggingFaceDataset",),
    "data.prepared_sound": ("PreparedSound",),
    "data.recordings": ("Columns",),
    "data.soundscapes": ("Soundscapes",),
    "data.tar_shards": ("WebDataset",),
    "data.teacher_samples": ("TeacherSamples",),
    "diffusion.flow": ("LogitNormalTimes",),
    "diffusion.weighting": (
        "BSA",
        "SNR",
        "FlowBSA",
        "MinSNR",
        "OwnWeighting",
        "SNRPlusOne",
        "Tango",
        "TruncatedSNR",
        "Uniform",
        "VelocityMSE",
        "Weighting",
    ),
    "distillation.denoising": ("Denoising",),
    "distillation.guidance_modes": (
        "Baked",
        "Embedded",
        "Outside",
    ),
    "distillation.methods": (
        "Method",
        "Progressive",
        "SegmentedConsistency",
    ),
    "distillation.module": ("ProgressiveDistillation",),
    "distillation.rounds": ("Plan",),
    "evaluation.embeddings.base": ("Embedding",),
    "evaluation.embeddings.clap": ("CLAP",),
    "evaluation.embeddings.encodec": ("EnCodec",),
    "evaluation.embeddings.laion_clap": ("LaionCLAP",),
    "evaluation.embeddings.log_mel": ("LogMelStatistics",),
    "evaluation.embeddings.pann": ("PANN",),
    "evaluation.embeddings.reading": (
        "AsAudioldmEval",
        "AsPublishedTango",
        "AsPublishedTangoFAD",
        "Plain",
        "Reading",
    ),
    "evaluation.embeddings.soundscape_listener": ("SoundscapeListener",),
    "evaluation.embeddings.vggish": ("VGGish",),
    "evaluation.embeddings.yamnet": ("YAMNet",),
    "evaluation.reference": ("TangoTestSet",),
    "evaluation.scoring": ("Scoring",),
    "evaluation.scoring_settings": ("ScoringSettings",),
    "generation.samplers": (
        "DDIM",
        "DPMSolver",
        "Renoising",
        "Sampler",
    ),
    "generation.text_to_audio": (
        "Sound",
        "TextToAudio",
    ),
    "models.family": ("Family",),
    "models.lora": ("LoRA",),
    "models.registry": ("register_family",),
    "models.tango.verified_pipeline": ("TangoPipeline",),
    "training.bad_updates": ("BadUpdates",),
    "training.latent_module": ("NetworkOptions",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "BSA",
    "CLAP",
    "DDIM",
    "PANN",
    "SNR",
    "AsAudioldmEval",
    "AsPublishedTango",
    "AsPublishedTangoFAD",
    "AudioCapsLatents",
    "AudioCapsManifest",
    "BadUpdates",
    "Baked",
    "CaptionedFolder",
    "ClipList",
    "Clips",
    "Columns",
    "DPMSolver",
    "Denoising",
    "Embedded",
    "Embedding",
    "EnCodec",
    "Family",
    "FlowBSA",
    "HuggingFaceDataset",
    "LaionCLAP",
    "LoRA",
    "LogMelStatistics",
    "LogitNormalTimes",
    "Method",
    "MinSNR",
    "NetworkOptions",
    "Outside",
    "OwnWeighting",
    "Plain",
    "Plan",
    "Prepared",
    "PreparedSound",
    "Progressive",
    "ProgressiveDistillation",
    "Reading",
    "Renoising",
    "Report",
    "SNRPlusOne",
    "Sampler",
    "Scoring",
    "ScoringSettings",
    "SegmentedConsistency",
    "Sound",
    "SoundscapeListener",
    "Soundscapes",
    "Tango",
    "TangoManifest",
    "TangoPipeline",
    "TangoTestSet",
    "TeacherSamples",
    "TextToAudio",
    "TruncatedSNR",
    "Uniform",
    "UserError",
    "VGGish",
    "VelocityMSE",
    "WebDataset",
    "Weighting",
    "YAMNet",
    "distill",
    "evaluate",
    "export",
    "load_model",
    "register_family",
    "report",
    "sample",
    "score",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - as Python has it
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bsa_lightning.common.light_imports import light_imports

    with light_imports():
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
