"""The AudioLDM 2 family: a UNet conditioned on T5's states and on states that GPT-2 generates, and a mel codec."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.models.audioldm import ClapConditioner, check_clap_tokenizer
from bsa_lightning.models.base import Conditioner
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.family import INDEX, Family
from bsa_lightning.models.mel_codec import MelCodec
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.provenance import is_integer
from bsa_lightning.models.sampling_settings import SamplingSettings
from bsa_lightning.models.t5 import T5_DECODER, T5Conditioner
from bsa_lightning.models.tokens import check_tokenizer
from bsa_lightning.models.unet import EXAMPLE_TOKENS, UNetDenoiser

if TYPE_CHECKING:
    from diffusers import AudioLDM2ProjectionModel
    from transformers import GPT2Model

_MODELS = ("text_encoder", "text_encoder_2", "projection_model", "language_model")
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_NUM_GENERATED = 8
"""The number of states that GPT-2 generates in the published models."""
_OTHER_STATES = 5
"""The states that GPT-2 reads besides T5's: CLAP's, and a learned one before and after each of the two."""


class AudioLDM2Denoiser(UNetDenoiser):
    """A UNet with two cross-attentions: one to the generated states, one to T5's states with their mask."""

    unet_class = "AudioLDM2UNet2DConditionModel"

    def inputs(self, conditioning: Conditioning) -> dict[str, Tensor | None]:
        return {
            "encoder_hidden_states": conditioning.tensors["generated"],
            "encoder_hidden_states_1": conditioning.tensors["states"],
            "encoder_attention_mask_1": conditioning.masks["states"],
        }

    def example_conditioning(self, batch_size: int) -> Conditioning:
        _, width, states_width = self.unet.config.cross_attention_dim[0]
        generated = torch.zeros(batch_size, _NUM_GENERATED, width)
        states = torch.zeros(batch_size, EXAMPLE_TOKENS, states_width)
        mask = torch.ones(states.shape[:2], dtype=torch.bool)
        return Conditioning({"generated": generated, "states": states}, {"states": mask})

    def enable_gradient_checkpointing(self) -> None:
        self.unet.enable_gradient_checkpointing(_checkpoint)


class AudioLDM2Conditioner(Conditioner):
    """GPT-2's ``generated`` states (batch, num_generated, width) and the sequence of T5's ``states``.

    GPT-2 counts padding in its positions, so the generated states of a caption in a padded batch would depend on the
    other captions. Captions are therefore encoded one by one, without padding.

    Args:
        clap: the CLAP text encoder, whose embedding is the first state that GPT-2 reads.
        t5: the T5 text encoder, whose states GPT-2 reads next.
        projection: the projection of both to the width of GPT-2, with learned states before and after each.
        language_model: GPT-2, which generates the states that follow.
        num_generated: the number of states that GPT-2 generates.
        fingerprint: the digest of all these models and their tokenizers.
    """

    def __init__(
        self,
        *,
        clap: ClapConditioner,
        t5: T5Conditioner,
        projection: AudioLDM2ProjectionModel,
        language_model: GPT2Model,
        num_generated: int,
        fingerprint: str,
    ) -> None:
        super().__init__()
        self.clap = clap
        self.t5 = t5
        self.projection = projection
        self.language_model = language_model
        self.num_generated = num_generated
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path) -> AudioLDM2Conditioner:
        """Reads the two text encoders with their tokenizers, the projection and GPT-2 of a model folder, in float32.

        The language model may be saved as ``GPT2Model``, as the published ones are, or with a head, which is ignored.

        Raises:
            UserError: if a part cannot be read, or the second text encoder is not T5.
        """
        from diffusers import AudioLDM2ProjectionModel
        from transformers import ClapModel, GPT2Model, T5EncoderModel

        model = ModelFolder(folder)
        model.require(*(f"{name}/config.json" for name in _MODELS))
        model.require(*(f"{name}/tokenizer_config.json" for name in _TOKENIZERS))
        kind = model.json("text_encoder_2/config.json").get("model_type")
        if kind != "t5":
            raise UserError(
                f'text_encoder_2 of {folder} is a "{kind}", but only T5 is supported, not the text encoder of a'
                " text-to-speech model; name a text-to-audio model"
            )
        clap, t5 = (
            model.network(ClapModel, "text_encoder"),
            model.network(T5EncoderModel, "text_encoder_2", ignored=T5_DECODER),
        )
        tokenizer, tokenizer_2 = (model.tokenizer(name) for name in _TOKENIZERS)
        check_clap_tokenizer(tokenizer, clap.config.text_config, folder / "tokenizer")
        check_tokenizer(tokenizer_2, t5.config, folder / "tokenizer_2")
        language_model = model.network(GPT2Model, "language_model", ignored=r"lm_head\.")
        # Read from the file, since transformers removes generation settings from a configuration that it loads.
        num_generated = model.json("language_model/config.json").get("max_new_tokens", _NUM_GENERATED)
        longest = language_model.config.n_positions - _OTHER_STATES
        if not is_integer(num_generated, at_least=1) or num_generated >= longest:
            raise UserError(
                f"max_new_tokens is {num_generated} in {folder / 'language_model' / 'config.json'}, but must be a whole"
                f" number from 1 to {longest - 1}; the published one is {_NUM_GENERATED}"
            )
        fingerprint = model.fingerprint(*_MODELS, *_TOKENIZERS)
        return cls(
            clap=ClapConditioner(clap, tokenizer, fingerprint),
            # GPT-2 needs a position for each state that it reads: all but the last that it generates.
            t5=T5Conditioner(t5, tokenizer_2, fingerprint, longest=longest - num_generated + 1),
            projection=model.network(AudioLDM2ProjectionModel, "projection_model"),
            language_model=language_model,
            num_generated=num_generated,
            fingerprint=fingerprint,
        )

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Conditioning:
        return Conditioning.cat([self._encode(caption) for caption in captions])

    def null(self) -> Conditioning:
        return self([""])

    def _encode(self, caption: str) -> Conditioning:
        """The conditioning of one caption."""
        embedding, text = self.clap([caption]).tensors["embedding"], self.t5([caption])
        states = self.projection(embedding[:, None], text.tensors["states"]).hidden_states
        for _ in range(self.num_generated):
            following = self.language_model(inputs_embeds=states, use_cache=False).last_hidden_state[:, -1:]
            states = torch.cat([states, following], dim=1)
        return Conditioning({"generated": states[:, -self.num_generated :], **text.tensors}, text.masks)


class AudioLDM2Family(Family):
    """AudioLDM 2 (Liu et al. 2024), sampled by default in 200 steps with guidance scale 3.5."""

    num_steps = 200
    guidance_scale = 3.5

    def denoiser(self, folder: Path, *, dtype: torch.dtype, weights: bool = True) -> AudioLDM2Denoiser:
        return AudioLDM2Denoiser.from_folder(folder, dtype=dtype, weights=weights)

    def conditioner(self, folder: Path) -> AudioLDM2Conditioner:
        return AudioLDM2Conditioner.from_folder(folder)

    def codec(self, folder: Path) -> MelCodec:
        return MelCodec.from_folder(folder)

    def complete(self, student: Path, teacher: Path, out: Path, sampling: SamplingSettings) -> str:
        """Also saves GPT-2 as the class that diffusers' pipeline can run; published folders name another class."""
        from transformers import GPT2LMHeadModel

        pipeline = super().complete(student, teacher, out, sampling)
        index = read_json(out / INDEX)
        if index["language_model"][1] != "GPT2LMHeadModel":
            # transformers removes the setting from a configuration that it loads.
            generated = read_json(out / "language_model" / "config.json").get("max_new_tokens", _NUM_GENERATED)
            model = GPT2LMHeadModel.from_pretrained(out / "language_model", dtype=torch.float32)
            model.save_pretrained(out / "language_model")
            config = read_json(out / "language_model" / "config.json") | {"max_new_tokens": generated}
            (out / "language_model" / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            index["language_model"] = ["transformers", "GPT2LMHeadModel"]
            (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        return pipeline


def _checkpoint(block: nn.Module, *inputs: Any) -> Any:  # noqa: ANN401 - as the block's
    """The output of ``block``, whose activations are recomputed in the backward pass.

    When it checkpoints, diffusers 0.42 omits the fourth argument of a transformer, so T5's mask would be applied to
    self-attention. The last argument asks for a tuple, since the class returned otherwise emits a deprecation warning.
    """
    from diffusers import Transformer2DModel

    if isinstance(block, Transformer2DModel):
        hidden, states, timestep, *others = inputs
        inputs = (hidden, states, timestep, None, *others, False)
    return checkpoint(block, *inputs, use_reentrant=False)
