"""The Tango family: a UNet conditioned on T5 states, and a mel codec. The built-in teachers belong to it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bsa_lightning.common.files import read_json
from bsa_lightning.models.base import shapes_only
from bsa_lightning.models.family import Family
from bsa_lightning.models.flow_unet import FlowUNetDenoiser, is_flow
from bsa_lightning.models.mel_codec import MelCodec
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.sampling_settings import SamplingSettings
from bsa_lightning.models.t5 import T5Conditioner
from bsa_lightning.models.tango.shapes import SCHEDULER, UNET
from bsa_lightning.models.unet import UNetDenoiser

_MODELS = Path(__file__).parents[1]
_CARRIED = {
    "PatchAutoencoder": _MODELS / "patch_autoencoder.py",
    "ISTFTVocoder": _MODELS / "istft_vocoder.py",
}
"""The files of networks that diffusers does not have, by class."""


def published_shape(*, dtype: torch.dtype) -> UNetDenoiser:
    """The network of declare-lab's checkpoints with shapes but no weights."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    with shapes_only(dtype):
        unet = UNet2DConditionModel.from_config(UNET)
    return UNetDenoiser(unet, DDIMScheduler.from_config(SCHEDULER))


class TangoFamily(Family):
    """Tango (Ghosal et al. 2023), sampled by default in 200 steps with guidance scale 3, also as a rectified flow."""

    pipeline_options = 'custom_pipeline="pipeline", trust_remote_code=True'
    pipeline_file = Path(__file__).with_name("pipeline.py")
    num_steps = 200
    guidance_scale = 3.0

    def denoiser(self, folder: Path, *, dtype: torch.dtype, weights: bool = True) -> UNetDenoiser:
        kind = FlowUNetDenoiser if is_flow(ModelFolder(folder)) else UNetDenoiser
        return kind.from_folder(folder, dtype=dtype, weights=weights)

    def conditioner(self, folder: Path) -> T5Conditioner:
        return T5Conditioner.from_folder(folder)

    def codec(self, folder: Path) -> MelCodec:
        return MelCodec.from_folder(folder)

    def carry_pipeline(self, out: Path) -> None:
        super().carry_pipeline(out)
        for part in ("vae", "vocoder"):
            config = out / part / "config.json"
            file = _CARRIED.get(str(read_json(config).get("_class_name"))) if config.is_file() else None
            if file is not None:
                shutil.copyfile(file, config.with_name(file.name))

    def student_index(self, index: Mapping[str, Any], sampling: SamplingSettings) -> dict[str, Any]:
        return {**index, **sampling.for_index()}
