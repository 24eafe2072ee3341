"""TangoFlux's network: a transformer of diffusers that is told sigma and predicts the velocity of a rectified flow."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.flow import FlowSchedule, Identity
from bsa_lightning.diffusion.process import Prediction, Velocity
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.flow_scheduler import flow_scheduler, flow_shift
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.provenance import is_integer

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

FRAMES = "_sample_size"
"""The entry of the transformer's configuration with the frames of a latent; diffusers keeps what begins with "_"."""
TIMES = 1000
"""What the network embeds is this times sigma."""
_SINUSOIDS = 256
"""The width of the sinusoids of a time or a guidance scale, fixed in diffusers' class."""
_EXAMPLE_TOKENS = 65
"""The number of states in an example batch: those of a long caption, and the duration's."""


class TangoFluxDenoiser(Denoiser):
    """A transformer of latents (channels, frames) and text states in one sequence, conditioned on their mean.

    Args:
        transformer: the network, whose configuration has the entry ``FRAMES``. Its embedding of time is replaced by one
            that gets exact times, with the same weights under the same names.
    """

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        transformer.time_text_embed = _ExactTimes(transformer.time_text_embed)
        self.transformer = transformer
        self.schedule = FlowSchedule(Identity())

    @classmethod
    def from_folder(cls, folder: Path, *, dtype: torch.dtype = torch.float32, weights: bool = True) -> Self:
        """Reads ``transformer/`` and ``scheduler/`` of a model or student folder.

        Args:
            folder: the folder.
            dtype: the type of the weights.
            weights: whether to read the weights; without them, the network has shapes but no memory.

        Raises:
            UserError: if a part cannot be read, or the scheduler is not TangoFlux's.
        """
        from diffusers import FluxTransformer2DModel

        model = ModelFolder(folder)
        model.require("transformer/config.json", "scheduler/scheduler_config.json")
        flow_shift(model, num_train_timesteps=TIMES, shift=1.0)
        frames = model.json("transformer/config.json").get(FRAMES)
        if not is_integer(frames, at_least=1):
            raise UserError(
                f"{FRAMES} is {frames} in {folder / 'transformer' / 'config.json'}, but must be the frames of a latent,"
                " at least 1; correct it"
            )
        read = model.network if weights else model.shapes
        return cls(read(FluxTransformer2DModel, "transformer", dtype=dtype))

    @property
    def takes_guidance(self) -> bool:  # type: ignore[override]
        return bool(self.transformer.config.guidance_embeds)

    def forward(
        self, z_t: Tensor, t: Tensor, conditioning: Conditioning, guidance_scale: Tensor | None = None
    ) -> Prediction:
        dtype = self.transformer.x_embedder.weight.dtype  # transformer.dtype iterates over all parameters
        text = conditioning.padded(self.length_multiple).to(dtype=dtype)
        states, mask = text.tensors["states"], text.masks["states"]
        alpha, sigma = self.schedule.alpha_sigma(t, dtype=torch.float64)
        told = (TIMES * sigma).float().to(z_t.device, non_blocking=True)
        features = [_sinusoids(told).to(dtype)]
        if guidance_scale is not None:
            features.append(_sinusoids(TIMES * guidance_scale.float()).to(dtype))
        frames = torch.arange(z_t.shape[-1], device=z_t.device, dtype=torch.float32)
        visible = torch.cat([mask, mask.new_ones(len(mask), len(frames))], dim=1)
        with warnings.catch_warnings():
            # Under autocast the norms of queries and keys keep their float32 weights, as they should.
            warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
            output = self.transformer(
                z_t.to(dtype).transpose(1, 2),
                encoder_hidden_states=states,
                pooled_projections=torch.cat([text.tensors["pooled"], *features], dim=1),
                timestep=told,
                img_ids=frames[:, None].expand(-1, 3),
                txt_ids=frames.new_zeros(states.shape[1], 3),
                joint_attention_kwargs={"attention_mask": visible[:, None, None]},
                return_dict=False,
            )[0].transpose(1, 2)
        return Velocity().prediction(output=output.float(), z_t=z_t.float(), alpha=alpha.float(), sigma=sigma.float())

    def null_beside(self, null: Conditioning, conditioning: Conditioning) -> Conditioning:
        """The empty caption beside each clip: padded to as many states as the clip's caption has, all of them visible.

        So does TangoFlux sample, whose network has no mask of the text.
        """
        mask = conditioning.masks["states"]
        at = torch.arange(mask.shape[1], device=mask.device)
        tensors = {
            "states": null.tensors["states"][:, : mask.shape[1]].expand(len(mask), -1, -1),
            "pooled": null.tensors["pooled"].expand(len(mask), -1),
        }
        return Conditioning(tensors, {"states": at < mask.sum(dim=1, keepdim=True)})

    @property
    def network(self) -> nn.Module:
        return self.transformer

    def example_inputs(self, batch_size: int) -> tuple[Tensor, Conditioning]:
        config = self.transformer.config
        states = torch.zeros(batch_size, _EXAMPLE_TOKENS, config.joint_attention_dim)
        tensors = {"states": states, "pooled": torch.zeros(batch_size, config.pooled_projection_dim)}
        z_t = torch.zeros(batch_size, config.in_channels, config[FRAMES])
        return z_t, Conditioning.unpadded(tensors, sequences=["states"])

    def save(self, folder: Path) -> None:
        self.transformer.save_pretrained(folder / "transformer")
        flow_scheduler(num_train_timesteps=TIMES).save_pretrained(folder / "scheduler")

    def blocks(self) -> list[nn.Module]:
        return [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]

    def add_guidance_input(self) -> None:
        self.transformer.time_text_embed.add_guidance()
        self.transformer.register_to_config(guidance_embeds=True)

    def enable_gradient_checkpointing(self) -> None:
        self.transformer.enable_gradient_checkpointing()


class _ExactTimes(nn.Module):
    """The embedding of time, guidance scale and pooled text, which gets the sinusoids along with the pooled text.

    diffusers' transformer rounds the time to the type of its activations before the sinusoids are computed: by as much
    as 3 of 1000 in bfloat16, also under autocast.

    Args:
        original: diffusers' embedding, whose weights are used under the same names.
    """

    def __init__(self, original: Any) -> None:  # noqa: ANN401 - one of two classes of diffusers
        super().__init__()
        self.timestep_embedder = original.timestep_embedder
        if hasattr(original, "guidance_embedder"):
            self.guidance_embedder = original.guidance_embedder
        self.text_embedder = original.text_embedder

    def forward(self, _time: Tensor, pooled_and_sinusoids: Tensor) -> Tensor:
        """The embedding, (batch, width), from (batch, text width + sinusoids of the time [+ those of the scale])."""
        width = self.text_embedder.linear_1.in_features
        time, *scale = pooled_and_sinusoids[:, width:].split(_SINUSOIDS, dim=1)
        embedding: Tensor = self.timestep_embedder(time)
        if scale:
            embedding = embedding + self.guidance_embedder(scale[0])
        return embedding + self.text_embedder(pooled_and_sinusoids[:, :width])

    def add_guidance(self) -> None:
        """Adds the embedding of a guidance scale: the first layer is that of time, the second is zero."""
        self.guidance_embedder = copy.deepcopy(self.timestep_embedder)
        for parameter in self.guidance_embedder.linear_2.parameters():
            nn.init.zeros_(parameter)


def _sinusoids(values: Tensor) -> Tensor:
    """The sinusoids of ``values`` (batch,), (batch, 256) in float32, as in diffusers' ``Timesteps``."""
    from diffusers.models.embeddings import get_timestep_embedding

    embedding: Tensor = get_timestep_embedding(values, _SINUSOIDS, flip_sin_to_cos=True, downscale_freq_shift=0)
    return embedding
