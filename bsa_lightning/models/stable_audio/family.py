"""The Stable Audio Open family: a diffusion transformer conditioned on T5 states and durations, and a stereo codec."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.process import Prediction, V
from bsa_lightning.diffusion.schedule import CosineSchedule
from bsa_lightning.models.base import Conditioner, Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.family import Family
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.oobleck_codec import Length, OobleckCodec
from bsa_lightning.models.provenance import is_integer
from bsa_lightning.models.sampling_settings import SamplingSettings
from bsa_lightning.models.t5 import T5_DECODER
from bsa_lightning.models.tokens import CaptionTokens, check_tokenizer

if TYPE_CHECKING:
    from diffusers import StableAudioDiTModel, StableAudioProjectionModel
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

Rotary = tuple[Tensor, Tensor]
_SCHEDULER = "cosine_scheduler"
_NUM_TOKENS = 128
"""The number of tokens of each caption, the maximum of the published tokenizer."""
_EXAMPLE_TOKENS = _NUM_TOKENS + 2
"""The number of states in an example batch: those of a caption, of its start and of its end."""
_SCHEDULERS = (
    "CosineDDIMScheduler",
    "CosineDPMSolverMultistepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
)
"""The schedulers of the cosine schedule; the first, of students, supports only the prediction of v."""


class StableAudioFamily(Family):
    """Stable Audio Open (Evans et al. 2024), sampled by default in 100 steps with guidance scale 7."""

    network = "transformer"
    pipeline_options = "trust_remote_code=True"
    num_steps = 100
    guidance_scale = 7.0

    def denoiser(self, folder: Path, *, dtype: torch.dtype, weights: bool = True) -> StableAudioDenoiser:
        return StableAudioDenoiser.from_folder(folder, dtype=dtype, weights=weights)

    def conditioner(self, folder: Path) -> StableAudioConditioner:
        return StableAudioConditioner.from_folder(folder, seconds=Length.from_folder(folder).seconds)

    def codec(self, folder: Path) -> OobleckCodec:
        return OobleckCodec.from_folder(folder, length=Length.from_folder(folder))

    def student_index(self, index: Mapping[str, Any], sampling: SamplingSettings) -> dict[str, Any]:
        """The teacher's index with our scheduler, whose code the folder contains; diffusers has no such scheduler."""
        return {**super().student_index(index, sampling), "scheduler": [_SCHEDULER, "CosineDDIMScheduler"]}


class StableAudioDenoiser(Denoiser):
    """A diffusion transformer that predicts v and has the continuous time t as its input.

    The scheduler of the folder is not built: it requires torchsde and draws noise at each step.

    Args:
        transformer: the network.
    """

    def __init__(self, transformer: StableAudioDiTModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.schedule = CosineSchedule()
        self._rotary: dict[tuple[int, torch.device], Rotary] = {}

    @classmethod
    def from_folder(cls, folder: Path, *, dtype: torch.dtype = torch.float32, weights: bool = True) -> Self:
        """Reads ``transformer/`` of a model or student folder.

        Args:
            folder: the folder.
            dtype: the type of the weights; only float32 is supported.
            weights: whether to read the weights; without them, the network has shapes but no memory.

        Raises:
            UserError: if a part cannot be read, the type is not float32, or the scheduler is not that of a network that
                predicts v on the cosine schedule.
        """
        from diffusers import StableAudioDiTModel

        if dtype != torch.float32:
            raise UserError(
                f"teacher_dtype is {str(dtype).removeprefix('torch.')}, but Stable Audio's network would round the time"
                " itself to it; use float32"
            )
        model = ModelFolder(folder)
        model.require("transformer/config.json", "scheduler/scheduler_config.json")
        _check_scheduler(model)
        sample_size = model.json("transformer/config.json").get("sample_size")
        if not is_integer(sample_size, at_least=1):
            raise UserError(
                f"sample_size is {sample_size} in {folder / 'transformer' / 'config.json'}, but must be the frames of a"
                " latent, at least 1; correct it"
            )
        if not weights:
            return cls(model.shapes(StableAudioDiTModel, "transformer", dtype=dtype))
        model.verify("scheduler")
        return cls(model.network(StableAudioDiTModel, "transformer", dtype=dtype))

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance_scale: Tensor | None = None,  # noqa: ARG002
    ) -> Prediction:
        dtype = self.transformer.proj_in.weight.dtype  # transformer.dtype iterates over all parameters
        tensors = conditioning.to(dtype=dtype).tensors
        (output,) = self.transformer(
            z_t.to(dtype),
            t.float().to(z_t.device, non_blocking=True),
            encoder_hidden_states=tensors["states"],
            global_hidden_states=tensors["durations"],
            rotary_embedding=self.rotary(z_t.shape[-1] + tensors["durations"].shape[1], z_t.device),
            return_dict=False,
        )
        alpha, sigma = self.schedule.alpha_sigma(t)
        return V().prediction(output=output.float(), z_t=z_t.float(), alpha=alpha, sigma=sigma)

    def rotary(self, num_tokens: int, device: torch.device) -> Rotary:
        """Cosines and sines of rotary positions, each (num_tokens, half a head's width), float32; cached per device."""
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        key = num_tokens, device
        if key not in self._rotary:
            width = self.transformer.config.attention_head_dim // 2
            # A tensor that was made in inference mode, as in validation, cannot be used in training.
            with torch.inference_mode(False):
                cos, sin = get_1d_rotary_pos_embed(width, num_tokens, use_real=True, repeat_interleave_real=False)
                self._rotary[key] = cos.to(device), sin.to(device)
        return self._rotary[key]

    @property
    def network(self) -> nn.Module:
        return self.transformer

    def example_inputs(self, batch_size: int) -> tuple[Tensor, Conditioning]:
        config = self.transformer.config
        states = torch.zeros(batch_size, _EXAMPLE_TOKENS, config.cross_attention_input_dim)
        durations = torch.zeros(batch_size, 1, config.global_states_input_dim)
        z_t = torch.zeros(batch_size, config.in_channels, config.sample_size)
        return z_t, Conditioning({"states": states, "durations": durations})

    def save(self, folder: Path) -> None:
        from bsa_lightning.models.stable_audio import cosine_scheduler

        self.transformer.save_pretrained(folder / "transformer")
        cosine_scheduler.CosineDDIMScheduler().save_pretrained(folder / "scheduler")
        shutil.copy(cosine_scheduler.__file__, folder / "scheduler" / f"{_SCHEDULER}.py")

    def blocks(self) -> list[nn.Module]:
        return list(self.transformer.transformer_blocks)

    def enable_gradient_checkpointing(self) -> None:
        self.transformer.enable_gradient_checkpointing()


class StableAudioConditioner(Conditioner):
    """A T5 encoder with a projection of its states and of the start and end time of a clip.

    The network has no mask and attends to padding too, as zeros, so all captions are padded to the tokenizer's maximum.
    The null conditioning has zeros for ``states``, and ``durations`` as any other caption.

    Args:
        encoder: the T5 encoder.
        tokenizer: the tokenizer of the encoder.
        projection: the projection of the encoder's states and of times in seconds.
        seconds: the duration of each clip.
        fingerprint: the digest of all of these.
    """

    def __init__(
        self,
        encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        projection: StableAudioProjectionModel,
        *,
        seconds: float,
        fingerprint: str,
    ) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.projection = encoder, tokenizer, projection
        self.tokens = CaptionTokens(tokenizer, name="the T5 text encoder", default=_NUM_TOKENS, pad_to_longest=True)
        self.seconds = seconds
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path, *, seconds: float) -> Self:
        """Reads ``text_encoder/``, ``tokenizer/`` and ``projection_model/`` of a model folder, in float32."""
        from diffusers import StableAudioProjectionModel
        from transformers import T5EncoderModel

        model = ModelFolder(folder)
        model.require(*(f"{name}/config.json" for name in ("text_encoder", "projection_model")))
        encoder, tokenizer = (
            model.network(T5EncoderModel, "text_encoder", ignored=T5_DECODER),
            model.tokenizer("tokenizer"),
        )
        check_tokenizer(tokenizer, encoder.config, folder / "tokenizer")
        return cls(
            encoder,
            tokenizer,
            model.network(StableAudioProjectionModel, "projection_model"),
            seconds=seconds,
            fingerprint=f"{model.fingerprint('text_encoder', 'tokenizer', 'projection_model')}-{seconds:g}s",
        )

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Conditioning:
        """``states`` (batch, tokens + 2, w) of text, start, end; ``durations`` (batch, 1, 2 w) of start and end."""
        ids, mask = self.tokens(captions, device=self.encoder.device)
        seconds = ids.new_full((len(ids),), self.seconds, dtype=torch.float32)
        projected = self.projection(
            text_hidden_states=self.encoder(ids, attention_mask=mask).last_hidden_state,
            start_seconds=torch.zeros_like(seconds),
            end_seconds=seconds,
        )
        start, end = projected.seconds_start_hidden_states, projected.seconds_end_hidden_states
        text = projected.text_hidden_states * mask[..., None]
        states, durations = torch.cat([text, start, end], dim=1), torch.cat([start, end], dim=2)
        return Conditioning({"states": states, "durations": durations})

    def null(self) -> Conditioning:
        empty = self([""]).tensors
        return Conditioning({**empty, "states": torch.zeros_like(empty["states"])})


def _check_scheduler(model: ModelFolder) -> None:
    """Refuses a network that was trained on another schedule or predicts anything but v."""
    path = "scheduler/scheduler_config.json"
    config = model.json(path)
    kind = config.get("_class_name")
    predicted = config.get("prediction_type", "v_prediction" if kind == _SCHEDULERS[0] else None)
    if predicted != "v_prediction":
        raise UserError(f'prediction_type is "{predicted}" in {model.path / path}, but must be v_prediction')
    if kind not in _SCHEDULERS:
        raise UserError(
            f'_class_name is "{kind}" in {model.path / path}, but only {", ".join(_SCHEDULERS)} can be read; name a'
            " folder of Stable Audio Open"
        )
