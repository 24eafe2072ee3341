"""The family of Stable Audio 3's model folders, in diffusers' layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.family import Family
from bsa_lightning.models.sampling_settings import SamplingSettings
from bsa_lightning.models.stable_audio_3.codec import ClipLength, StableAudio3Codec
from bsa_lightning.models.stable_audio_3.conditioner import StableAudio3Conditioner
from bsa_lightning.models.stable_audio_3.denoiser import StableAudio3Denoiser

_NOTES = """## Sampling

The student was trained on the noise levels of `StableAudio3Pipeline` at its own number of steps, and its teacher was
sampled as that pipeline samples. Stability AI's own sampler of Stable Audio 3 differs in that it

- gives zeros for the input of inpainting, which the pipeline leaves out;
- takes zeros for all states of the unguided branch, where the pipeline takes the empty caption with the duration;
- projects the guidance by default, where the pipeline adds it as it is;
- generates six seconds more than it is asked for, and masks them;
- adds a little noise before it decodes, and normalizes with an epsilon of 1e-5 in place of 1e-6.

## Terms of Stable Audio 3

The published weights of Stable Audio 3 are under the Stability AI Community License, and their text encoder under the
Gemma terms of use. A student of them is a derivative: it carries both, and says "Powered by Stability AI"."""


class StableAudio3Family(Family):
    """Stable Audio 3's base checkpoints, as diffusers' pipeline samples them: in 100 steps, without guidance.

    Stability recommends guidance scale 7 for them, which is left to the user as in the pipeline.
    """

    network = "transformer"
    num_steps = 100
    guidance_scale = 1.0
    length_argument = "duration"
    card_notes = _NOTES

    def denoiser(self, folder: Path, *, dtype: torch.dtype, weights: bool = True) -> StableAudio3Denoiser:
        return StableAudio3Denoiser.from_folder(folder, dtype=dtype, weights=weights)

    def conditioner(self, folder: Path) -> StableAudio3Conditioner:
        return StableAudio3Conditioner.from_folder(folder, seconds=ClipLength.from_folder(folder).seconds)

    def codec(self, folder: Path) -> StableAudio3Codec:
        return StableAudio3Codec.from_folder(folder, length=ClipLength.from_folder(folder))

    def student_index(self, index: Mapping[str, Any], sampling: SamplingSettings) -> dict[str, Any]:
        if sampling.guidance == "outside" and sampling.guidance_scale < 1:
            raise UserError(
                f"guidance_scale is {sampling.guidance_scale}, but {index['_class_name']} applies no scale below 1;"
                " export a student with another scale, or sample this one with lightning generate"
            )
        return {**super().student_index(index, sampling), "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
