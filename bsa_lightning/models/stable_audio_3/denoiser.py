"""The network of Stable Audio 3: a diffusion transformer that predicts a velocity and is told the noise level."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.process import Prediction, Velocity
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.flow_scheduler import flow_scheduler, flow_shift
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.stable_audio_3.codec import ClipLength
from bsa_lightning.models.stable_audio_3.conditioner import NUM_TOKENS
from bsa_lightning.models.stable_audio_3.schedule import StableAudio3Schedule

if TYPE_CHECKING:
    from diffusers import StableAudio3DiTModel

_SCHEDULER = "scheduler/scheduler_config.json"
_TRAIN_TIMESTEPS = 1
"""``num_train_timesteps`` of the scheduler: the network is told sigma itself."""
_EXAMPLE_FRAMES = 108
"""The frames of an example batch for a folder without a codec: 10 s of the published one."""


class StableAudio3Denoiser(Denoiser):
    """A diffusion transformer that predicts u = eps - x and has the noise level sigma, in float32, as its input.

    Its context is always 256 states of text, of which the network replaces those of padding by an embedding of its
    own, and one of the duration; it attends to all of them, so that the number of valid states matters.

    Args:
        transformer: the network.
        frames: the number of latent frames of an example batch, at least 1; the network takes any number.
    """

    def __init__(self, transformer: StableAudio3DiTModel, *, frames: int) -> None:
        super().__init__()
        self.transformer = transformer
        for block in transformer.transformer_blocks:
            # They take an input of inpainting, which the pipeline leaves out; DDP would wait for their gradients.
            block.to_local_embed.requires_grad_(False)
        self.frames = frames
        self.schedule = StableAudio3Schedule()

    @classmethod
    def from_folder(cls, folder: Path, *, dtype: torch.dtype = torch.float32, weights: bool = True) -> Self:
        """Reads ``transformer/`` of a model or student folder.

        Args:
            folder: the folder.
            dtype: the type of the weights.
            weights: whether to read the weights; without them, the network has shapes but no memory.

        Raises:
            UserError: if a part cannot be read, or the scheduler is not that of a deterministic flow.
        """
        from diffusers import StableAudio3DiTModel

        model = ModelFolder(folder)
        model.require("transformer/config.json", _SCHEDULER)
        _check_scheduler(model)
        # A student's folder does not have the codec that defines a frame.
        frames = ClipLength.from_folder(folder).num_frames if model.has("vae") else _EXAMPLE_FRAMES
        if not weights:
            return cls(model.shapes(StableAudio3DiTModel, "transformer", dtype=dtype), frames=frames)
        network = model.network(StableAudio3DiTModel, "transformer", dtype=dtype)
        if dtype != torch.float32:
            _restore_positions(network)
        return cls(network, frames=frames)

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance_scale: Tensor | None = None,  # noqa: ARG002
    ) -> Prediction:
        dtype = self.transformer.proj_in.weight.dtype  # transformer.dtype iterates over all parameters
        alpha, sigma = self.schedule.alpha_sigma(t)
        conditioning = conditioning.to(dtype=dtype)
        states, duration = conditioning.tensors["states"], conditioning.tensors["duration"]
        padding = NUM_TOKENS - states.shape[1]
        context = torch.cat([nn.functional.pad(states, (0, 0, 0, padding)), duration[:, None]], dim=1)
        valid = nn.functional.pad(conditioning.masks["states"], (0, padding))
        (output,) = self.transformer(
            z_t.to(dtype),
            sigma.to(z_t.device, non_blocking=True),
            encoder_hidden_states=context,
            global_hidden_states=duration,
            encoder_attention_mask=torch.cat([valid, valid.new_ones(len(valid), 1)], dim=1),
            return_dict=False,
        )
        return Velocity().prediction(output=output.float(), z_t=z_t.float(), alpha=alpha, sigma=sigma)

    @property
    def network(self) -> nn.Module:
        return self.transformer

    def example_inputs(self, batch_size: int) -> tuple[Tensor, Conditioning]:
        config = self.transformer.config
        states = torch.zeros(batch_size, NUM_TOKENS, config.cond_token_dim)
        duration = torch.zeros(batch_size, config.global_cond_dim)
        z_t = torch.zeros(batch_size, config.io_channels, self.frames)
        return z_t, Conditioning.unpadded({"states": states, "duration": duration}, sequences=["states"])

    def save(self, folder: Path) -> None:
        self.transformer.save_pretrained(folder / "transformer")
        flow_scheduler(num_train_timesteps=_TRAIN_TIMESTEPS).save_pretrained(folder / "scheduler")

    def blocks(self) -> list[nn.Module]:
        return list(self.transformer.transformer_blocks)

    def enable_gradient_checkpointing(self) -> None:
        self.transformer.enable_gradient_checkpointing()


def _check_scheduler(model: ModelFolder) -> None:
    """Refuses a scheduler that adds noise, or whose steps are not those of :class:`StableAudio3Schedule`."""
    if model.json(_SCHEDULER).get("stochastic_sampling"):
        raise UserError(
            f"stochastic_sampling is true in {model.path / _SCHEDULER}, as for post-trained checkpoints, whose sampler"
            " adds new noise at each step, so that no student can learn where its steps lead; name a base checkpoint"
        )
    flow_shift(model, num_train_timesteps=_TRAIN_TIMESTEPS, shift=1.0)


def _restore_positions(transformer: StableAudio3DiTModel) -> None:
    """Makes the frequencies of rotary positions float32 again.

    diffusers rounds them like weights, and the numbers of frames with them: in bfloat16, from frame 256 on.
    """
    positions = transformer.rotary_pos_emb
    width = 2 * len(positions.inv_freq)
    transformer.rotary_pos_emb = type(positions)(width)
