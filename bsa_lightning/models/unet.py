"""A UNet of diffusers as a Denoiser: the network of Tango, of the built-in teacher and, adapted, of AudioLDM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.process import Eps, Parametrization, Prediction, V, X
from bsa_lightning.diffusion.schedule import TableSchedule
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.mel_codec import sample_size
from bsa_lightning.models.model_folder import ModelFolder, readable
from bsa_lightning.models.provenance import is_integer, is_number
from bsa_lightning.models.sampling_settings import in_file

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DConditionModel

PARAMETRIZATIONS: dict[str, Parametrization] = {"v_prediction": V(), "epsilon": Eps(), "sample": X()}
"""The parametrizations by their names in diffusers (``prediction_type``)."""
_GUIDANCE_EMBEDDING = 256
"""The width of the embedding of the guidance scale, as in diffusers' latent consistency models."""
_BANDS = 16
"""The bands of a latent if ``sample_size`` gives only its frames: 64 mel bands, halved twice by the autoencoder."""
EXAMPLE_TOKENS = 64
"""The number of tokens in an example batch, that of a long caption."""
_SCHEDULER = "scheduler/scheduler_config.json"
_MOST_TIMESTEPS = 1_000_000


class UNetDenoiser(Denoiser):
    """A UNet with cross-attention to a sequence of text states.

    Args:
        unet: the UNet.
        scheduler: the scheduler with the table of timesteps that the network was trained on and its prediction type.
            Its settings of the sampling grid are not used.

    Raises:
        UserError: if the prediction type is unknown, the table is not that of a diffusion process, or x and eps cannot
            be computed from the prediction at one of its timesteps.
    """

    unet_class = "UNet2DConditionModel"

    def __init__(self, unet: UNet2DConditionModel, scheduler: Any) -> None:  # noqa: ANN401 - of the subclass
        super().__init__()
        self.unet = unet
        self.use_scheduler(scheduler)
        if (width := unet.config.time_cond_proj_dim) not in (None, _GUIDANCE_EMBEDDING):
            raise UserError(
                f"time_cond_proj_dim is {width}, but only {_GUIDANCE_EMBEDDING} are supported; name another model"
            )

    def use_scheduler(self, scheduler: DDIMScheduler) -> None:
        """Takes the schedule, the parametrization and the scheduler to save from the scheduler of a folder."""
        self.parametrization = _parametrization(scheduler)
        self.table = TableSchedule(scheduler.alphas_cumprod)
        self.schedule = self.table
        # The settings with which diffusers samples on the grid that students are trained on.
        self.scheduler = type(scheduler).from_config(
            scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
        )

    @staticmethod
    def read_scheduler(model: ModelFolder) -> Any:  # noqa: ANN401 - of the subclass
        """The scheduler of a model folder.

        Raises:
            UserError: if it cannot be read, or is not of the class that this denoiser is for.
        """
        return _scheduler(model)

    def timesteps(self, t: Tensor) -> Tensor:
        """What the network is told of times ``t`` (batch,), on the CPU."""
        return self.table.position(t) - 1

    @classmethod
    def from_folder(cls, folder: Path, *, dtype: torch.dtype = torch.float32, weights: bool = True) -> Self:
        """Reads ``unet/`` and ``scheduler/`` of a model or student folder.

        Args:
            folder: the folder.
            dtype: the type of the weights.
            weights: whether to read the weights; without them, the network has shapes but no memory.

        Raises:
            UserError: if one of them cannot be read, or was changed since it was written.
        """
        import diffusers

        model = ModelFolder(folder)
        model.require("unet/config.json", _SCHEDULER)
        sample_size(model)
        scheduler = cls.read_scheduler(model)
        unet_class = getattr(diffusers, cls.unet_class)
        unet = (
            model.network(unet_class, "unet", dtype=dtype) if weights else model.shapes(unet_class, "unet", dtype=dtype)
        )
        try:
            return cls(unet, scheduler)
        except UserError as error:
            raise in_file(folder, error) from error

    @property
    def takes_guidance(self) -> bool:  # type: ignore[override]
        return self.unet.config.time_cond_proj_dim is not None

    def forward(
        self, z_t: Tensor, t: Tensor, conditioning: Conditioning, guidance_scale: Tensor | None = None
    ) -> Prediction:
        dtype = self.unet.conv_in.weight.dtype  # unet.dtype iterates over all parameters
        output = self.unet(
            z_t.to(dtype),
            self.timesteps(t).to(z_t.device, non_blocking=True),
            timestep_cond=None if guidance_scale is None else guidance_embedding(guidance_scale).to(dtype),
            **self.inputs(conditioning.padded(self.length_multiple).to(dtype=dtype)),
        ).sample
        alpha, sigma = self.schedule.alpha_sigma(t)
        return self.parametrization.prediction(output=output.float(), z_t=z_t.float(), alpha=alpha, sigma=sigma)

    def inputs(self, conditioning: Conditioning) -> dict[str, Tensor | None]:
        """The arguments of the UNet for the conditioning of a batch."""
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
        """The conditioning of a batch, all zeros."""
        states = torch.zeros(batch_size, EXAMPLE_TOKENS, self.unet.config.cross_attention_dim)
        return Conditioning({"states": states}, {"states": torch.ones(states.shape[:2], dtype=torch.bool)})

    def save(self, folder: Path) -> None:
        self.unet.save_pretrained(folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")

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
    """The embedding of guidance scales g (batch,): sinusoids of 1000 (g - 1), (batch, 256), as in diffusers."""
    from diffusers.models.embeddings import get_timestep_embedding

    embedding: Tensor = get_timestep_embedding(
        1000 * (scale.float() - 1), _GUIDANCE_EMBEDDING, flip_sin_to_cos=False, downscale_freq_shift=1
    )
    return embedding


def _scheduler(model: ModelFolder) -> DDIMScheduler:
    """The scheduler of a model folder as DDIM's, which shares its table with the other schedulers of diffusers.

    Raises:
        UserError: if it cannot be read, or its class does not have such a table.
    """
    from diffusers import DDIMScheduler

    path, config = model.path / _SCHEDULER, model.json(_SCHEDULER)
    model.verify("scheduler")
    if (kind := config.get("_class_name", "DDIMScheduler")) not in DDIMScheduler._compatibles:
        raise UserError(
            f'_class_name is "{kind}" in {path}, but must be that of a scheduler with a table, such as DDIMScheduler'
        )
    # diffusers would use the values of Stable Diffusion for missing entries.
    for name in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type"):
        if name not in config:
            raise UserError(f"{path} has no {name}, and the network was trained on one; restore it")
    num_timesteps = config["num_train_timesteps"]
    if not is_integer(num_timesteps, at_least=1) or num_timesteps > _MOST_TIMESTEPS:
        raise UserError(
            f"num_train_timesteps is {num_timesteps} in {path}, but must be a whole number from 1 to {_MOST_TIMESTEPS}"
        )
    if (betas := config.get("trained_betas")) is None:
        for name in ("beta_start", "beta_end"):
            if not is_number(config[name], at_least=0):
                raise UserError(f"{name} is {config[name]} in {path}, but must be a number from 0 to 1")
    elif not isinstance(betas, list) or not all(is_number(beta, at_least=0) for beta in betas):
        raise UserError(f"trained_betas in {path} are not numbers from 0 to 1; restore them")
    with readable(path, "a scheduler"):
        scheduler: DDIMScheduler = DDIMScheduler.from_config(config)
    return scheduler


def _parametrization(scheduler: DDIMScheduler) -> Parametrization:
    """The parametrization of a scheduler, after a check that x and eps follow from it at each timestep of the table.

    Raises:
        UserError: if they do not, or the table is not that of a diffusion process.
    """
    kind, table = scheduler.config.prediction_type, scheduler.alphas_cumprod.double()
    if kind not in PARAMETRIZATIONS:
        raise UserError(
            f'prediction_type of the scheduler is "{kind}", but must be one of {", ".join(PARAMETRIZATIONS)}'
        )
    falls = table.ndim == 1 and bool((table >= 0).all() and (table.diff(prepend=torch.ones(1).to(table)) < 0).all())
    if not falls or len(table) != scheduler.config.num_train_timesteps:
        raise UserError(
            "the scheduler's table is not that of a diffusion process, in which the signal falls from below 1"
            " to no less than 0 over all num_train_timesteps; correct its betas, each above 0 and at most 1"
        )
    if kind == "epsilon" and table[-1] == 0:
        raise UserError(
            "prediction_type is epsilon, but the scheduler's table leaves no signal at t = 1 (rescale_betas_zero_snr,"
            " or a beta of 1), where x does not follow from the noise; use v_prediction or sample, or a table that"
            " leaves some signal"
        )
    return PARAMETRIZATIONS[kind]
