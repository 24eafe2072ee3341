"""The TangoFlux family: a flow-matching transformer conditioned on T5 states and durations, and a stereo codec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bsa_lightning.common.files import read_json
from bsa_lightning.models import provenance
from bsa_lightning.models.base import shapes_only
from bsa_lightning.models.family import Family
from bsa_lightning.models.oobleck_codec import Length, OobleckCodec
from bsa_lightning.models.provenance import INDEX
from bsa_lightning.models.sampling_settings import SamplingSettings
from bsa_lightning.models.tangoflux.checkpoint import PUBLISHED_CONFIG, transformer_config
from bsa_lightning.models.tangoflux.conditioner import TangoFluxConditioner
from bsa_lightning.models.tangoflux.denoiser import FRAMES, TangoFluxDenoiser


def published_shape(*, dtype: torch.dtype) -> TangoFluxDenoiser:
    """The network of declare-lab's checkpoints with shapes but no weights."""
    from diffusers import FluxTransformer2DModel

    with shapes_only(dtype):
        transformer = FluxTransformer2DModel.from_config(transformer_config(PUBLISHED_CONFIG))
    return TangoFluxDenoiser(transformer)


class TangoFluxFamily(Family):
    """TangoFlux (Hung et al. 2024), sampled by default in 50 steps with guidance scale 4.5."""

    network = "transformer"
    parts = ("vae", "projection", "text_encoder", "tokenizer")
    pipeline_options = 'custom_pipeline="tangoflux_pipeline", trust_remote_code=True'
    pipeline_file = Path(__file__).with_name("tangoflux_pipeline.py")
    length_argument = "audio_length_in_s"
    num_steps = 50
    guidance_scale = 4.5

    def denoiser(self, folder: Path, *, dtype: torch.dtype, weights: bool = True) -> TangoFluxDenoiser:
        return TangoFluxDenoiser.from_folder(folder, dtype=dtype, weights=weights)

    def conditioner(self, folder: Path) -> TangoFluxConditioner:
        return TangoFluxConditioner.from_folder(folder, seconds=_length(folder).seconds)

    def codec(self, folder: Path) -> OobleckCodec:
        return OobleckCodec.from_folder(folder, length=_length(folder))

    def complete(self, student: Path, teacher: Path, out: Path, sampling: SamplingSettings) -> str:
        """As of any family; the index has the duration that the student was trained with, if not the longest."""
        pipeline = super().complete(student, teacher, out, sampling)
        index = {**read_json(out / INDEX), "seconds": provenance.read(teacher).get("seconds")}
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        return pipeline

    def student_index(self, index: Mapping[str, Any], sampling: SamplingSettings) -> dict[str, Any]:
        return {**index, **sampling.for_index()}


def _length(folder: Path) -> Length:
    return Length.from_folder(folder, frames_entry=FRAMES)
