"""A diffusers UNet on a table of trained timesteps, as a Denoiser: Tango's and the built-in teacher's network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from bsa_lightning.diffusion.process import Eps, Parametrization, Prediction, V, X
from bsa_lightning.diffusion.schedule import TableSchedule
from bsa_lightning.teachers.base import Conditioning, Denoiser, require, shapes_only

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DConditionModel

PARAMETRIZATIONS: dict[str, Parametrization] = {"v_prediction": V(), "epsilon": Eps(), "sample": X()}
"""diffusers' names for what a network predicts."""
_GUIDANCE_EMBEDDING = 256
"""Width of the guidance scale's sinusoids, as in diffusers' latent consistency models."""
_BANDS = 16
"""Of a latent whose network names its frames alone: 64 mel bands through an autoencoder of three levels."""
EXAMPLE_TOKENS = 64
"""Of a long caption."""


class UNetDenoiser(Denoiser):
    """Text states reach the UNet by cross-attention, with their mask.

    Args:
        unet: the network.
        scheduler: carries the trained table and what the network predicts; its grid settings are replaced by ours.
    """

    unet_class = "UNet2DConditionModel"
    schedule: TableSchedule

    def __init__(self, unet: UNet2DConditionModel, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.unet = unet
        self.schedule = TableSchedule(scheduler.alphas_cumprod)
        self.parametrization = PARAMETRIZATIONS[scheduler.config.prediction_type]
        # What plain diffusers needs to sample on the grid that students are trained on.
        self._scheduler = type(scheduler).from_config(
            scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
        )

    @classmethod
    def from_folder(cls, folder: Path, *, dtype: torch.dtype = torch.float32, weights: bool = True) -> Self:
        """Reads ``unet/`` and ``scheduler/`` of a model or student folder; without ``weights``, their shapes alone."""
        import diffusers

        require(folder, "unet/config.json", "scheduler/scheduler_config.json")
        unet_class = getattr(diffusers, cls.unet_class)
        if weights:
            unet = unet_class.from_pretrained(folder / "unet", torch_dtype=dtype, low_cpu_mem_usage=False)
        else:
            with shapes_only(dtype):
                unet = unet_class.from_config(unet_class.load_config(folder / "unet"))
        return cls(unet, diffusers.DDIMScheduler.from_pretrained(folder / "scheduler"))

    @property
    def takes_guidance(self) -> bool:  # type: ignore[override]
        return self.unet.config.time_cond_proj_dim is not None

    def forward(
        self, z_t: Tensor, t: Tensor, conditioning: Conditioning, guidance_scale: Tensor | None = None
    ) -> Prediction:
        dtype = self.unet.conv_in.weight.dtype  # unet.dtype walks all parameters, at each call
        output = self.unet(
            z_t.to(dtype),
            self.schedule.position(t) - 1,
            timestep_cond=None if guidance_scale is None else guidance_embedding(guidance_scale).to(dtype),
            **self.inputs(conditioning.padded(self.length_multiple).to(dtype=dtype)),
        ).sample
        alpha, sigma = self.schedule.alpha_sigma(t)
        return self.parametrization.prediction(output=output.float(), z_t=z_t.float(), alpha=alpha, sigma=sigma)

    def inputs(self, conditioning: Conditioning) -> dict[str, Tensor | None]:
        """The network's arguments for what a clip is conditioned on."""
        return {
            "encoder_hidden_states": conditioning.tensors["states"],
            "encoder_attention_mask": conditioning.masks["states"],
        }

    @property
    def network(self) -> nn.Module:
        return self.unet

    def example_inputs(self, batch_size: int) -> tuple[Tensor, Conditioning]:
        size, channels = self.unet.config.sample_size, self.unet.config.in_channels
        frames, bands = (size, _BANDS) if isinstance(size, int) else size
        return torch.zeros(batch_size, channels, frames, bands), self.example_conditioning(batch_size)

    def example_conditioning(self, batch_size: int) -> Conditioning:
        """Zeros in the shape of what a clip is conditioned on."""
        states = torch.zeros(batch_size, EXAMPLE_TOKENS, self.unet.config.cross_attention_dim)
        return Conditioning({"states": states}, {"states": torch.ones(states.shape[:2], dtype=torch.bool)})

    def save(self, folder: Path) -> None:
        self.unet.save_pretrained(folder / "unet")
        self._scheduler.save_pretrained(folder / "scheduler")

    def blocks(self) -> list[nn.Module]:
        levels = (*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks)
        lists = [getattr(level, name, ()) for level in levels for name in ("resnets", "attentions")]
        return [part for parts in lists for part in parts]

    def add_guidance_input(self) -> None:
        time_embedding = self.unet.time_embedding
        first = time_embedding.linear_1
        projection = nn.Linear(
            _GUIDANCE_EMBEDDING, first.in_features, bias=False, device=self.unet.device, dtype=self.unet.dtype
        )
        nn.init.zeros_(projection.weight)
        time_embedding.cond_proj = projection.requires_grad_(first.weight.requires_grad)
        self.unet.register_to_config(time_cond_proj_dim=_GUIDANCE_EMBEDDING)

    def enable_gradient_checkpointing(self) -> None:
        self.unet.enable_gradient_checkpointing()


def guidance_embedding(scale: Tensor) -> Tensor:
    """Sinusoids of 1000 (g - 1), (batch, 256): the convention of diffusers' ``timestep_cond``."""
    from diffusers.models.embeddings import get_timestep_embedding

    embedding: Tensor = get_timestep_embedding(
        1000 * (scale.float() - 1), _GUIDANCE_EMBEDDING, flip_sin_to_cos=False, downscale_freq_shift=1
    )
    return embedding
