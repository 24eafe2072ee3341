"""The pipeline of TangoFlux and its students, in the interface of diffusers' pipelines.

It needs torch, diffusers and transformers alone, so that a model folder carries this file for those who have no more
than these.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderOobleck, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import AudioPipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

_log = logging.getLogger(__name__)
_LARGEST_SCALE = 1000
_TIMES = 1000
"""The transformer multiplies the noise level by this itself, the scheduler has multiplied it already."""
_NO_LIMIT = 10**9
"""A maximum length of a tokenizer from which on there is none; transformers uses 10^30."""
_NUM_TOKENS = 512
"""The most tokens of a caption if the tokenizer does not limit them, as in TangoFlux."""
Generators = torch.Generator | list[torch.Generator]


class TangoFluxPipeline(DiffusionPipeline):
    """A pipeline from captions to stereo waveforms.

    The null of guidance is the empty caption padded to as many tokens as the caption has, all of them visible, as in
    the original; padding is invisible otherwise, so that a batch is its clips alone. Use it in float32: the transformer
    rounds noise levels to its own type.

    Args:
        vae: the autoencoder of waveforms.
        text_encoder: the T5 encoder.
        tokenizer: the tokenizer of ``text_encoder``.
        projection: the layers of the pooled text and of the duration, whose class the folder carries.
        transformer: the network; one with ``guidance_embeds`` has the guidance scale as an input.
        scheduler: the scheduler, without a shift; it is given the noise levels 1, 1 - 1/N, ..., 1/N.
        num_inference_steps: the default number of steps N.
        guidance: the place of guidance: "outside" of the network, "baked" into it, or "embedded" as its input.
        guidance_scale: the default guidance scale g.
        guidance_range: the smallest and the largest g that a network with embedded guidance supports.
        seconds: the default length of a clip in seconds; ``None`` is the longest.

    Raises:
        ValueError: if ``guidance`` is none of these, or does not belong to the network.
    """

    model_cpu_offload_seq = "text_encoder->projection->transformer->vae"
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012 - name and type are given by diffusers

    def __init__(
        self,
        vae: AutoencoderOobleck,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        projection: ModelMixin,
        transformer: FluxTransformer2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        num_inference_steps: int = 50,
        guidance: str = "outside",
        guidance_scale: float = 4.5,
        guidance_range: Sequence[float] | None = None,
        seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            projection=projection,
            transformer=transformer,
            scheduler=scheduler,
        )
        self.register_to_config(
            num_inference_steps=num_inference_steps,
            guidance=guidance,
            guidance_scale=guidance_scale,
            guidance_range=None if guidance_range is None else list(guidance_range),
            seconds=seconds,
        )
        if guidance not in ("outside", "baked", "embedded"):
            raise ValueError(f'guidance is "{guidance}", but must be outside, baked or embedded')
        if (guidance == "embedded") != transformer.config.guidance_embeds:
            raise ValueError(
                f'guidance is "{guidance}", but the network has {"no" if guidance == "embedded" else "an"} input for'
                " its scale; open the folder that the network was saved in"
            )
        tokenizer.padding_side = "right"  # as in the original; the null's states depend on it

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # noqa: ANN401 - theirs
        """Writes a folder as diffusers does, with this file, so that the folder opens in diffusers alone."""
        super().save_pretrained(save_directory, **kwargs)
        shutil.copyfile(__file__, Path(save_directory) / "tangoflux_pipeline.py")
        index = Path(save_directory) / "model_index.json"
        # diffusers names the module from which it has loaded the class here, in place of the file in the folder.
        named = {"projection": ["caption_projection", type(self.projection).__name__]}
        index.write_text(json.dumps(json.loads(index.read_text()) | named, indent=2) + "\n")

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
        callback_on_step_end: Callable[[TangoFluxPipeline, int, Tensor, dict[str, Tensor]], dict[str, Tensor]]
        | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> AudioPipelineOutput | tuple[Any]:
        """Generates sound for one or more captions.

        Args:
            prompt: the caption or captions.
            negative_prompt: the caption to guide away from, one for all or one per caption; ``None`` is the empty
                caption.
            audio_length_in_s: the length of a clip in seconds, above 0 and at most that of the latent; ``None`` is the
                model's default. The network is told it, and the sound is cut to it.
            num_inference_steps: the number of steps N, at least 1; ``None`` is the model's default.
            guidance_scale: the guidance scale g, from 0 to 1000; 1 is no guidance, ``None`` is the model's default.
            num_waveforms_per_prompt: the number of clips per caption, at least 1; clips of a caption are consecutive.
            generator: the generator of the noise, one for all clips or one per clip.
            latents: the noise itself, (clips, channels, frames), in place of ``generator``.
            output_type: "np" or "pt" for waveforms (clips, 2, samples), "latent" for latents.
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
        seconds = self._seconds(audio_length_in_s)
        embedded = self.transformer.config.guidance_embeds
        outside = scale != 1.0 and not embedded
        negative = (negative_prompt or "") if outside else None
        inputs = self._text_inputs(captions, negative, num_waveforms_per_prompt, seconds)

        num_clips = len(captions) * num_waveforms_per_prompt
        z = self._noise(num_clips, generator, latents)
        positions = torch.arange(z.shape[-1], device=z.device, dtype=torch.float32)[:, None].expand(-1, 3)
        self.scheduler.set_timesteps(sigmas=[1 - step / num_steps for step in range(num_steps)], device=z.device)
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            both = torch.cat([z, z]) if outside else z
            output = self.transformer(
                both.transpose(1, 2),
                timestep=(timestep / _TIMES).expand(len(both)),
                guidance=torch.full((len(both),), scale, device=z.device) if embedded else None,
                img_ids=positions,
                **inputs,
            ).sample.transpose(1, 2)
            if outside:
                cond, uncond = output.chunk(2)
                output = uncond + scale * (cond - uncond)
            z = self.scheduler.step(output, timestep, z).prev_sample
            if callback_on_step_end is not None:
                z = (callback_on_step_end(self, step, timestep, {"latents": z}) or {}).get("latents", z)
        audio: Any = z if output_type == "latent" else self._decode(z, seconds)
        if output_type == "np":
            audio = audio.cpu().float().numpy()
        self.maybe_free_model_hooks()
        return AudioPipelineOutput(audios=audio) if return_dict else (audio,)

    @property
    def _frames(self) -> int:
        """The frames of a latent."""
        return int(self.transformer.config["_sample_size"])

    @property
    def _longest(self) -> float:
        """The length that a latent represents, in seconds."""
        return float(self._frames * self.vae.hop_length / self.vae.config.sampling_rate)

    def _seconds(self, requested: float | None) -> float:
        """The length of the clips in seconds."""
        seconds = next(s for s in (requested, self.config.seconds, self._longest) if s is not None)
        if not 0 < seconds <= self._longest:
            raise ValueError(f"audio_length_in_s is {seconds}, but must be above 0 and at most {self._longest:g}")
        return float(seconds)

    def _scale(self, requested: float | None) -> float:
        """The scale to sample with so that the sound has the guidance scale g, which is ``None`` for the default."""
        g = self.config.guidance_scale if requested is None else requested
        if not 0 <= g <= _LARGEST_SCALE:
            raise ValueError(f"guidance scale is {g}, but must be from 0 to {_LARGEST_SCALE}; 1 is no guidance")
        if self.config.guidance == "baked":
            if g != (baked := self.config.guidance_scale):
                raise ValueError(f"guidance scale is {g}, but this model has {baked} baked in; leave the scale out")
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
        if min(num_steps, num_waveforms) < 1:
            both = f"num_inference_steps is {num_steps} and num_waveforms_per_prompt {num_waveforms}"
            raise ValueError(f"{both}; each must be at least 1")
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

    def _text_inputs(
        self, captions: list[str], negative: str | Sequence[str] | None, repeats: int, seconds: float
    ) -> dict[str, Any]:
        """The arguments of the transformer that depend on the captions; first of all clips, then of their nulls.

        Args:
            captions: the captions.
            negative: what to guide away from, one for all or one per caption; ``None`` if there is no guidance.
            repeats: the number of clips per caption.
            seconds: the length of the clips.
        """
        nulls = [] if negative is None else [negative] * len(captions) if isinstance(negative, str) else list(negative)
        texts = [text for several in (captions, nulls) for text in several for _ in range(repeats)]
        tokens = self._tokens(different := list(dict.fromkeys(texts)))
        mask = tokens["attention_mask"].bool()
        states = self.text_encoder(tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        # An offloaded encoder changes its device when it is called, so the results are moved.
        device, places = self._execution_device, [different.index(text) for text in texts]
        dtype = self.transformer.dtype
        states, pooled = self.projection(states.to(device, self.projection.dtype), mask.to(device), seconds)
        visible = mask.to(device)[places]
        if nulls:  # each shows as many states, padding too, as its caption has
            num_clips = len(captions) * repeats
            shown = torch.maximum(visible[:num_clips].sum(dim=1), visible[num_clips:].sum(dim=1))
            visible[num_clips:] = torch.arange(visible.shape[1], device=device) < shown[:, None]
        # The token of the duration is before the text, the frames of the latent after it.
        attended = torch.nn.functional.pad(visible, (1, self._frames), value=True)
        return {
            "encoder_hidden_states": states.to(dtype)[places],
            "pooled_projections": pooled.to(dtype)[places],
            "txt_ids": torch.zeros(states.shape[1], 3, device=device),
            "joint_attention_kwargs": {"attention_mask": attended[:, None, None]},
        }

    def _tokens(self, texts: list[str]) -> Any:  # noqa: ANN401 - theirs
        """The tokens of texts, padded to the longest of them."""
        longest = limit if (limit := self.tokenizer.model_max_length) < _NO_LIMIT else _NUM_TOKENS
        for text in texts:
            if len(self.tokenizer(text, verbose=False)["input_ids"]) > longest:
                _log.warning('the caption "%s" is cut after %d tokens', text, longest)
        tokens = self.tokenizer(texts, padding="longest", truncation=True, max_length=longest, return_tensors="pt")
        return tokens.to(self.text_encoder.device)

    def _noise(self, num_clips: int, generator: Generators | None, latents: Tensor | None) -> Tensor:
        shape = (num_clips, self.transformer.config.in_channels, self._frames)
        if isinstance(generator, list) and len(generator) != num_clips:
            raise ValueError(f"generator is a list of {len(generator)}, but there are {num_clips} clips")
        if latents is None:
            return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.transformer.dtype)
        if tuple(latents.shape) != shape:
            raise ValueError(f"latents are of shape {tuple(latents.shape)}, but must be {shape}")
        return latents.to(self._execution_device, self.transformer.dtype)

    def _decode(self, x: Tensor, seconds: float) -> Tensor:
        waveform: Tensor = self.vae.decode(x.to(self.vae.dtype)).sample
        end = None if seconds == self._longest else int(seconds * self.vae.config.sampling_rate)
        return waveform[..., :end].clamp(-1.0, 1.0)
