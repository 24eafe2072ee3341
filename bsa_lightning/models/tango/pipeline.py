"""The pipeline of Tango and its students, in the interface of diffusers' pipelines."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import AudioPipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import PreTrainedTokenizerBase, SpeechT5HifiGan, T5EncoderModel

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.mel import HOP_LENGTH, NUM_BANDS, GriffinLim
from bsa_lightning.models.mel_codec import latent_frames
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.sampling_settings import SamplingSettings
from bsa_lightning.models.t5 import T5Conditioner
from bsa_lightning.models.unet import guidance_embedding

_SAMPLE_RATE = 16_000
Generators = torch.Generator | list[torch.Generator]


class TangoPipeline(DiffusionPipeline):
    """A pipeline from captions to waveforms at 16 kHz.

    ``TangoPipeline.from_pretrained(folder)("A dog barks").audios[0]`` is a waveform.

    Args:
        vae: the autoencoder of log-mel spectrograms.
        text_encoder: the T5 encoder.
        tokenizer: the tokenizer of ``text_encoder``.
        unet: the network; one with ``time_cond_proj_dim`` has the guidance scale as an input.
        scheduler: any scheduler of diffusers; a student is trained for the one in its folder.
        vocoder: the module that turns log-mel spectrograms into waveforms; ``None`` uses Griffin-Lim.
        num_inference_steps: the default number of steps N.
        guidance: the place of guidance: "outside" of the network, "baked" into it, or "embedded" as its input.
        guidance_scale: the default guidance scale g.
        guidance_range: the smallest and the largest g that a network with embedded guidance supports.

    Raises:
        UserError: if a setting is out of its range, or ``guidance`` and the network do not belong together.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae->vocoder"
    _optional_components = ["vocoder"]  # noqa: RUF012 - name and type are given by diffusers
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        vocoder: SpeechT5HifiGan | None = None,
        num_inference_steps: int = 200,
        guidance: str = "outside",
        guidance_scale: float = 3.0,
        guidance_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            vocoder=vocoder,
        )
        self.register_to_config(
            num_inference_steps=num_inference_steps,
            guidance=guidance,
            guidance_scale=guidance_scale,
            guidance_range=None if guidance_range is None else list(guidance_range),
        )
        if guidance not in ("outside", "baked", "embedded"):
            raise UserError(f'guidance is "{guidance}", but must be outside, baked or embedded')
        if (guidance == "embedded") != (unet.config.time_cond_proj_dim is not None):
            raise UserError(
                f'guidance is "{guidance}", but the network has {"no" if guidance == "embedded" else "an"} input for'
                " its scale; open the folder that the network was saved in"
            )
        bounds = None if guidance_range is None else (guidance_range[0], guidance_range[1])
        self.sampling = SamplingSettings(num_inference_steps, guidance, guidance_scale, bounds)
        self.frame_factor = 2 ** (len(vae.config.block_out_channels) - 1)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:  # noqa: ANN401 - theirs
        """Reads a pipeline as diffusers does, after a comparison of a folder's files with its provenance.

        Args:
            pretrained_model_name_or_path: a folder or a hub id.
            **kwargs: the arguments of diffusers' method.

        Raises:
            UserError: if a file of the folder was changed since it was written.
        """
        folder = Path(pretrained_model_name_or_path)
        if folder.is_dir():
            ModelFolder(folder).verify()
        pipeline: Self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        return pipeline

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        audio_length_in_s: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_waveforms_per_prompt: int = 1,
        generator: Generators | None = None,
        latents: Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[[TangoPipeline, int, Tensor, dict[str, Tensor]], dict[str, Tensor]]
        | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> AudioPipelineOutput | tuple[Any]:
        """Generates sound for one or more captions.

        Args:
            prompt: the caption or captions.
            negative_prompt: the caption to guide away from, one for all or one per caption; ``None`` is the empty
                caption.
            audio_length_in_s: the length of a clip in seconds; ``None`` is the length that the model was trained on.
            num_inference_steps: the number of steps N, at least 1; ``None`` is the model's default.
            guidance_scale: the guidance scale g, from 0 to 1000; 1 is no guidance, ``None`` is the model's default.
            num_waveforms_per_prompt: the number of clips per caption, at least 1; clips of a caption are consecutive.
            generator: the generator of the noise, one for all clips or one per clip.
            latents: the noise itself, (clips, channels, frames, bands), in place of ``generator``.
            output_type: "np" or "pt" for waveforms (clips, samples), "latent" for scaled latents.
            return_dict: whether the result is an ``AudioPipelineOutput`` rather than a tuple.
            callback_on_step_end: a function that is called with (pipeline, step, timestep, tensors) after each step
                and returns the tensors, changed or not.
            callback_on_step_end_tensor_inputs: the names of the tensors it gets; only "latents" is supported.

        Raises:
            UserError: if a setting is out of its range, or the model does not support it.
        """
        captions = [prompt] if isinstance(prompt, str) else list(prompt)
        num_steps = self.sampling.num_steps if num_inference_steps is None else num_inference_steps
        self._check(captions, negative_prompt, num_steps, num_waveforms_per_prompt, output_type)
        if unknown := set(callback_on_step_end_tensor_inputs) - {"latents"}:
            raise UserError(f"callback_on_step_end_tensor_inputs names {min(unknown)}; only latents can be had")
        scale = self.sampling.scale(guidance_scale)
        embedded = self.unet.config.time_cond_proj_dim is not None
        outside = scale != 1.0 and not embedded
        conditioning = self._encode(captions, negative_prompt, num_waveforms_per_prompt, outside=outside)

        device, num_clips = self._execution_device, len(captions) * num_waveforms_per_prompt
        seconds = self._trained_length if audio_length_in_s is None else audio_length_in_s
        z = self._noise(num_clips, seconds, generator, latents)
        embedding = guidance_embedding(torch.full((num_clips,), scale, device=device)).to(z.dtype) if embedded else None
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if takes_generator else {}
        self.scheduler.set_timesteps(num_steps, device=device)
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            both = self.scheduler.scale_model_input(torch.cat([z, z]) if outside else z, timestep)
            output = self.unet(
                both,
                timestep,
                timestep_cond=embedding,
                encoder_hidden_states=conditioning.tensors["states"],
                encoder_attention_mask=conditioning.masks["states"],
            ).sample
            if outside:
                uncond, cond = output.chunk(2)
                output = uncond + scale * (cond - uncond)
            z = self.scheduler.step(output, timestep, z, **extra).prev_sample
            if callback_on_step_end is not None:
                z = (callback_on_step_end(self, step, timestep, {"latents": z}) or {}).get("latents", z)
        audio: Any = z if output_type == "latent" else self._decode(z, round(seconds * _SAMPLE_RATE))
        if output_type == "np":
            audio = audio.cpu().float().numpy()
        self.maybe_free_model_hooks()
        return AudioPipelineOutput(audios=audio) if return_dict else (audio,)

    @property
    def _trained_length(self) -> float:
        """The length of the clips that the network was trained on, in seconds."""
        frames = latent_frames(self.unet.config.sample_size) * self.frame_factor
        return frames * HOP_LENGTH / _SAMPLE_RATE

    def _check(
        self,
        captions: list[str],
        negative_prompt: str | Sequence[str] | None,
        num_steps: int,
        num_waveforms: int,
        output_type: str,
    ) -> None:
        if not captions:
            raise UserError("prompt is empty; name at least one caption")
        if num_steps < 1 or num_waveforms < 1:
            raise UserError(
                f"num_inference_steps is {num_steps} and num_waveforms_per_prompt {num_waveforms}; each must be at"
                " least 1"
            )
        if output_type not in ("np", "pt", "latent"):
            raise UserError(f'output_type is "{output_type}", but must be "np", "pt" or "latent"')
        if negative_prompt is None:
            return
        if self.sampling.guidance != "outside":
            raise UserError(
                f"negative_prompt is given, but this model's guidance is {self.sampling.guidance}, without a branch to"
                " guide away from; leave negative_prompt out"
            )
        if not isinstance(negative_prompt, str) and len(negative_prompt) != len(captions):
            raise UserError(f"negative_prompt has {len(negative_prompt)} entries, but prompt has {len(captions)}")

    def _encode(
        self, captions: list[str], negative: str | Sequence[str] | None, repeats: int, *, outside: bool
    ) -> Conditioning:
        """The text states of all clips, after the states to guide away from if guidance is outside of the network."""
        conditioner = T5Conditioner(self.text_encoder, self.tokenizer, fingerprint="")
        device, dtype = self._execution_device, self.unet.dtype
        # An offloaded encoder changes its device on the first call, so each result is moved first.
        conditioning = conditioner(captions).to(device, dtype=dtype).repeat(repeats)
        if outside:
            away = [negative or ""] * len(captions) if negative is None or isinstance(negative, str) else list(negative)
            uncond = conditioner(away).to(device, dtype=dtype).repeat(repeats)
            conditioning = Conditioning.cat([uncond, conditioning])
        return conditioning

    def _noise(self, num_clips: int, seconds: float, generator: Generators | None, latents: Tensor | None) -> Tensor:
        if not 0 < seconds < math.inf:
            raise UserError(f"audio_length_in_s is {seconds}, but must be above 0")
        # The network halves the number of frames at each level but the last.
        multiple = 2 ** (len(self.unet.config.block_out_channels) - 1)
        frames = math.ceil(seconds * _SAMPLE_RATE / HOP_LENGTH / self.frame_factor / multiple) * multiple
        shape = (num_clips, self.unet.config.in_channels, frames, NUM_BANDS // self.frame_factor)
        if isinstance(generator, list) and len(generator) != num_clips:
            raise UserError(f"generator is a list of {len(generator)}, but there are {num_clips} clips")
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)
        elif tuple(latents.shape) != shape:
            raise UserError(f"latents are of shape {tuple(latents.shape)}, but must be {shape}")
        noise: Tensor = latents.to(self._execution_device, self.unet.dtype) * self.scheduler.init_noise_sigma
        return noise

    def _decode(self, x: Tensor, num_samples: int) -> Tensor:
        log_mel = self.vae.decode(x.to(self.vae.dtype) / self.vae.config.scaling_factor).sample[:, 0]
        vocoder = GriffinLim().to(log_mel.device) if self.vocoder is None else self.vocoder
        waveform: Tensor = vocoder(log_mel)[..., :num_samples]
        return waveform.clamp(-1.0, 1.0)
