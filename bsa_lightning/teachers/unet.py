"""A diffusers UNet on a table of trained timesteps, as a Denoiser: Tango's and the built-in teacher's network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from bsa_lightning.diffusion.process import Eps, Parametrization, Prediction, V, X
from bsa_lightning.diffusion.schedule import TableSchedule
from bsa_lightning.errors import UserError
from bsa_lightning.teachers.base import Conditioning, Denoiser

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DConditionModel

PARAMETRIZATIONS: dict[str, Parametrization] = {"v_prediction": V(), "epsilon": Eps(), "sample": X()}
"""diffusers' names for what a network predicts."""


class UNetDenoiser(Denoiser):
    """Text states reach the UNet by cross-attention, with their mask.

    Args:
        unet: whose ``sample_size`` is the latent's (frames, bands).
        scheduler: carries the trained table and what the network predicts; its grid settings are replaced by ours.
    """

    schedule: TableSchedule

    def __init__(self, unet: UNet2DConditionModel, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.unet = unet
        self.schedule = TableSchedule(scheduler.alphas_cumprod)
        self.latent_shape = (unet.config.in_channels, *unet.config.sample_size)
        self.parametrization = PARAMETRIZATIONS[scheduler.config.prediction_type]
        # What plain diffusers needs to sample on the grid that students are trained on.
        self._scheduler = type(scheduler).from_config(
            scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
        )

    @classmethod
    def from_folder(cls, folder: Path) -> UNetDenoiser:
        """Reads ``unet/`` and ``scheduler/`` of a model or student folder, in float32."""
        import torch
        from diffusers import DDIMScheduler, UNet2DConditionModel

        _require(folder, "unet/config.json", "scheduler/scheduler_config.json")
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False)
        return cls(unet, DDIMScheduler.from_pretrained(folder / "scheduler"))

    def forward(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Prediction:
        output = self.unet(
            z_t,
            self.schedule.position(t) - 1,
            encoder_hidden_states=conditioning.tensors["states"],
            encoder_attention_mask=conditioning.masks["states"],
        ).sample
        alpha, sigma = self.schedule.alpha_sigma(t)
        return self.parametrization.prediction(output=output.float(), z_t=z_t.float(), alpha=alpha, sigma=sigma)

    def save(self, folder: Path) -> None:
        self.unet.save_pretrained(folder / "unet")
        self._scheduler.save_pretrained(folder / "scheduler")

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        _require(folder, "unet/diffusion_pytorch_model.safetensors")
        self.unet.load_state_dict(load_file(weights))


def _require(folder: Path, *names: str) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a model folder: it has no {name}; name a folder in diffusers' layout")
