"""Stable Audio Open as a model folder: a diffusion transformer on T5 states and durations, a stereo autoencoder."""

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
from bsa_lightning.models.provenance import is_whole
from bsa_lightning.models.sampling_settings import SamplingSettings
from bsa_lightning.models.t5 import WHOLE_T5
from bsa_lightning.models.tokens import CaptionTokens, check_tokenizer

if TYPE_CHECKING:
    from diffusers import StableAudioDiTModel, StableAudioProjectionModel
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

Rotary = tuple[Tensor, Tensor]
_SCHEDULER = "cosine_scheduler"
_NUM_TOKENS = 128
"""Of each caption: the published tokenizer's full length."""
_EXAMPLE_TOKENS = _NUM_TOKENS + 2
"""These, start and end."""
_SCHEDULERS = (
    "CosineDDIMScheduler",
    "CosineDPMSolverMultistepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
)
"""Those that walk the one schedule which is understood here; the first, a student's, is for v alone."""


class StableAudioFamily(Family):
    """Evans et al. 2024; sampled in 100 steps at guidance 7."""

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
        """The scheduler is the one file of code that a student's folder carries; diffusers has none that would do."""
        return {**super().student_index(index, sampling), "scheduler": [_SCHEDULER, "CosineDDIMScheduler"]}


class StableAudioDenoiser(Denoiser):
    """A transformer that predicts v and is told t itself.

    The folder's own scheduler is never built: it needs torchsde, and draws noise at every step.
    """

    def __init__(self, transformer: StableAudioDiTModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.schedule = CosineSchedule()
        self._rotary: dict[tuple[int, torch.device], Rotary] = {}

    @classmethod
    def from_folder(cls, folder: Path, *, dtype: torch.dtype = torch.float32, weights: bool = True) -> Self:
        """Reads ``transformer/`` of a model or student folder; without ``weights``, its shapes alone.

        Raises:
            UserError: if its scheduler is for something else than v.
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
        if not is_whole(sample_size, least=1):
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
        dtype = self.transformer.proj_in.weight.dtype  # transformer.dtype walks all parameters, at each call
        tensors = conditioning.to(dtype=dtype).tensors
        (output,) = self.transformer(
            z_t.to(dtype),
            t.float(),
            encoder_hidden_states=tensors["states"],
            global_hidden_states=tensors["durations"],
            rotary_embedding=self.rotary(z_t.shape[-1] + tensors["durations"].shape[1], z_t.device),
            return_dict=False,
        )
        alpha, sigma = self.schedule.alpha_sigma(t)
        return V().prediction(output=output.float(), z_t=z_t.float(), alpha=alpha, sigma=sigma)

    def rotary(self, num_tokens: int, device: torch.device) -> Rotary:
        """Cosines and sines, each (num_tokens, half a head's width) in float32; made once for each device."""
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        key = num_tokens, device
        if key not in self._rotary:
            width = self.transformer.config.attention_head_dim // 2
            # Made while validating, it would be a tensor of inference mode, which no training step could use.
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
    """Projected T5 states and embedded start and end.

    The network has no mask: it attends to padding too, as zeros. So all captions have the tokenizer's full length.
    The null conditioning is zeros in place of text and durations; the network's other input for durations stays.

    Args:
        encoder: T5.
        tokenizer: its own.
        projection: of states and of seconds.
        seconds: that every clip lasts.
        fingerprint: of all of these.
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
            model.network(T5EncoderModel, "text_encoder", beside=WHOLE_T5),
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
        """Text, start and end as ``states`` (batch, tokens + 2, w); start and end as ``durations`` (batch, 1, 2 w)."""
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
    """Refuses what a network is trained for on another schedule, or to predict something else than v."""
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
