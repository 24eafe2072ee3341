"""The pipeline of Tango and its students, in the interface of diffusers' pipelines.

It needs torch, diffusers and transformers alone, and torchaudio where the folder has no vocoder, so that a model folder
carries this file for those who have no more than these.
"""

from __future__ import annotations

import inspect
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin, UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.pipeline_utils import AudioPipelineOutput
from diffusers.schedulers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

_log = logging.getLogger(__name__)
_SAMPLE_RATE = 16_000
_HOP_LENGTH = 160
_NUM_BANDS = 64
_LARGEST_SCALE = 1000
_NO_LIMIT = 10**9
"""A maximum length of a tokenizer from which on there is none; transformers uses 10^30."""
_NUM_TOKENS = 512
"""The most tokens of a caption if the tokenizer does not limit them, as in Tango."""
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
        ValueError: if ``guidance`` is none of these, or does not belong to the network.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae->vocoder"
    _optional_components = ["vocoder"]  # noqa: RUF012 - name and type are given by diffusers
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012

    def __init__(
        self,
        vae: ModelMixin,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler | FlowMatchEulerDiscreteScheduler,
        vocoder: torch.nn.Module | None = None,
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
            raise ValueError(f'guidance is "{guidance}", but must be outside, baked or embedded')
        if (guidance == "embedded") != (unet.config.time_cond_proj_dim is not None):
            raise ValueError(
                f'guidance is "{guidance}", but the network has {"no" if guidance == "embedded" else "an"} input for'
                " its scale; open the folder that the network was saved in"
            )
        self.frame_factor = vae.config.get("patch_size") or 2 ** (len(vae.config.block_out_channels) - 1)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # noqa: ANN401 - theirs
        """Writes a folder as diffusers does, with this file, so that the folder opens in diffusers alone."""
        super().save_pretrained(save_directory, **kwargs)
        shutil.copyfile(__file__, Path(save_directory) / "pipeline.py")

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
            ValueError: if a setting is out of its range, or the model does not support it.
        """
        captions = [prompt] if isinstance(prompt, str) else list(prompt)
        num_steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        self._check(captions, negative_prompt, num_steps, num_waveforms_per_prompt, output_type)
        if unknown := set(callback_on_step_end_tensor_inputs) - {"latents"}:
            raise ValueError(f"callback_on_step_end_tensor_inputs names {min(unknown)}; only latents can be had")
        scale = self._scale(guidance_scale)
        embedded = self.unet.config.time_cond_proj_dim is not None
        outside = scale != 1.0 and not embedded
        states, mask = self._encode(captions, negative_prompt, num_waveforms_per_prompt, outside=outside)

        device, num_clips = self._execution_device, len(captions) * num_waveforms_per_prompt
        seconds = self._trained_length if audio_length_in_s is None else audio_length_in_s
        z = self._noise(num_clips, seconds, generator, latents)
        embedding = _guidance_embedding(scale, num_clips, device).to(z.dtype) if embedded else None
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if takes_generator else {}
        flow = isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler)  # whose own grid would end elsewhere
        grid = {"sigmas": [1 - i / num_steps for i in range(num_steps)]} if flow else {"num_inference_steps": num_steps}
        self.scheduler.set_timesteps(**grid, device=device)
        scaled = (lambda sample, _: sample) if flow else self.scheduler.scale_model_input
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            both = scaled(torch.cat([z, z]) if outside else z, timestep)
            output = self.unet(
                both,
                timestep,
                timestep_cond=embedding,
                encoder_hidden_states=states,
                encoder_attention_mask=mask,
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
        size = self.unet.config.sample_size
        frames = (size if isinstance(size, int) else size[0]) * self.frame_factor
        return float(frames * _HOP_LENGTH / _SAMPLE_RATE)

    def _scale(self, requested: float | None) -> float:
        """The scale to sample with so that the sound has the guidance scale g, which is ``None`` for the default."""
        g = self.config.guidance_scale if requested is None else requested
        if not 0 <= g <= _LARGEST_SCALE:
            raise ValueError(f"guidance scale is {g}, but must be from 0 to {_LARGEST_SCALE}; 1 is no guidance")
        if self.config.guidance == "baked":
            if g != self.config.guidance_scale:
                raise ValueError(
                    f"guidance scale is {g}, but this model has {self.config.guidance_scale} baked in; leave the scale"
                    " out"
                )
            return 1.0
        low, high = self.config.guidance_range or (0, _LARGEST_SCALE)
        if not low <= g <= high:
            raise ValueError(f"guidance scale is {g}, but this model was trained for scales from {low} to {high}")
        return float(g)

    def _check(
        self,
        captions: list[str],
        negative_prompt: str | Sequence[str] | None,
        num_steps: int,
        num_waveforms: int,
        output_type: str,
    ) -> None:
        if not captions:
            raise ValueError("prompt is empty; name at least one caption")
        if num_steps < 1 or num_waveforms < 1:
            raise ValueError(
                f"num_inference_steps is {num_steps} and num_waveforms_per_prompt {num_waveforms}; each must be at"
                " least 1"
            )
        if output_type not in ("np", "pt", "latent"):
            raise ValueError(f'output_type is "{output_type}", but must be "np", "pt" or "latent"')
        if negative_prompt is None:
            return
        if self.config.guidance != "outside":
            raise ValueError(
                f"negative_prompt is given, but this model's guidance is {self.config.guidance}, without a branch to"
                " guide away from; leave negative_prompt out"
            )
        if not isinstance(negative_prompt, str) and len(negative_prompt) != len(captions):
            raise ValueError(f"negative_prompt has {len(negative_prompt)} entries, but prompt has {len(captions)}")

    def _encode(
        self, captions: list[str], negative: str | Sequence[str] | None, repeats: int, *, outside: bool
    ) -> tuple[Tensor, Tensor]:
        """The text states and their mask of all clips, after those to guide away from if guidance is outside."""
        texts = [caption for caption in captions for _ in range(repeats)]
        if outside:
            away = [negative or ""] * len(captions) if negative is None or isinstance(negative, str) else list(negative)
            texts = [caption for caption in away for _ in range(repeats)] + texts
        limit = self.tokenizer.model_max_length
        longest = limit if limit < _NO_LIMIT else _NUM_TOKENS
        different = list(dict.fromkeys(texts))
        for caption in different:
            if len(self.tokenizer(caption, verbose=False)["input_ids"]) > longest:
                _log.warning('the caption "%s" is cut after %d tokens', caption, longest)
        tokens = self.tokenizer(
            different, padding="longest", truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.text_encoder.device)
        states = self.text_encoder(tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        # An offloaded encoder changes its device when it is called, so the results are moved.
        device, places = self._execution_device, [different.index(text) for text in texts]
        return states.to(device, self.unet.dtype)[places], tokens["attention_mask"].bool().to(device)[places]

    def _noise(self, num_clips: int, seconds: float, generator: Generators | None, latents: Tensor | None) -> Tensor:
        if not 0 < seconds < math.inf:
            raise ValueError(f"audio_length_in_s is {seconds}, but must be above 0")
        multiple = 2 ** (len(self.unet.config.block_out_channels) - 1)  # frames are halved at each level but the last
        frames = math.ceil(seconds * _SAMPLE_RATE / _HOP_LENGTH / self.frame_factor / multiple) * multiple
        shape = (num_clips, self.unet.config.in_channels, frames, _NUM_BANDS // self.frame_factor)
        if isinstance(generator, list) and len(generator) != num_clips:
            raise ValueError(f"generator is a list of {len(generator)}, but there are {num_clips} clips")
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents are of shape {tuple(latents.shape)}, but must be {shape}")
        scale = getattr(self.scheduler, "init_noise_sigma", 1.0)  # which a flow's scheduler does not have
        noise: Tensor = latents.to(self._execution_device, self.unet.dtype) * scale
        return noise

    def _decode(self, x: Tensor, num_samples: int) -> Tensor:
        log_mel = self.vae.decode(x.to(self.vae.dtype) / self.vae.config.scaling_factor).sample[:, 0]
        waveform: Tensor = (_griffin_lim if self.vocoder is None else self.vocoder)(log_mel)[..., :num_samples]
        return waveform.clamp(-1.0, 1.0)


def _guidance_embedding(scale: float, num_clips: int, device: torch.device) -> Tensor:
    """The embedding of a guidance scale g, (clips, 256): sinusoids of 1000 (g - 1), as in latent consistency models."""
    scaled = 1000 * (torch.full((num_clips,), scale, device=device) - 1)
    return get_timestep_embedding(scaled, 256, flip_sin_to_cos=False, downscale_freq_shift=1)


def _griffin_lim(log_mel: Tensor) -> Tensor:
    """Waveforms (batch, frames * 160) of log-mel spectrograms (batch, frames, 64), from every second frame."""
    from torchaudio.functional import melscale_fbanks
    from torchaudio.transforms import GriffinLim

    bands = melscale_fbanks(513, 0.0, 8000.0, _NUM_BANDS, _SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    inverse = torch.linalg.pinv(bands).to(log_mel.device)
    magnitude = (log_mel.float().exp() @ inverse).clamp(min=0).transpose(-1, -2)
    # The last frame is repeated for the one or two more that a centred transform needs.
    magnitude = torch.cat([magnitude, magnitude[..., -1:], magnitude[..., -1:]], dim=-1)[..., ::2]
    phases = GriffinLim(1024, n_iter=12, hop_length=2 * _HOP_LENGTH, power=1.0, momentum=0.9, rand_init=False)
    waveform: Tensor = phases.to(log_mel.device)(magnitude)
    return waveform[..., : log_mel.shape[1] * _HOP_LENGTH]
