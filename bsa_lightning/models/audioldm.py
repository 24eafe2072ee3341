"""The AudioLDM family: a UNet conditioned on one CLAP text embedding, and a mel codec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.base import Conditioner
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.family import Family
from bsa_lightning.models.mel_codec import MelCodec
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.tokens import CaptionTokens, check_tokenizer
from bsa_lightning.models.unet import UNetDenoiser

if TYPE_CHECKING:
    from transformers import ClapModel, ClapTextConfig, ClapTextModelWithProjection, PreTrainedTokenizerBase


_SOUND_SIDE = r"audio_(model|projection)\.|logit_scale"
"""A pattern of the names of weights that a complete CLAP model has beyond its text side."""


class AudioLDMDenoiser(UNetDenoiser):
    """A UNet that adds the embedding of the caption to that of the time, as a class label, without cross-attention."""

    def inputs(self, conditioning: Conditioning) -> dict[str, Tensor | None]:
        return {"encoder_hidden_states": None, "class_labels": conditioning.tensors["embedding"]}

    def example_conditioning(self, batch_size: int) -> Conditioning:
        width = self.unet.config.projection_class_embeddings_input_dim
        return Conditioning({"embedding": torch.zeros(batch_size, width)})


class ClapConditioner(Conditioner):
    """CLAP's text encoder: ``embedding`` (batch, width), one vector of norm 1 per caption.

    Args:
        encoder: a CLAP model, of which only the text side is used.
        tokenizer: the tokenizer of the encoder.
        fingerprint: the digest of encoder and tokenizer.
    """

    def __init__(
        self, encoder: ClapTextModelWithProjection | ClapModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str
    ) -> None:
        super().__init__()
        self.text_model, self.projection = encoder.text_model, encoder.text_projection
        self.tokenizer = tokenizer
        config = self.text_model.config
        self.tokens = CaptionTokens(tokenizer, name="the CLAP text encoder", longest=longest_caption(config))
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path) -> ClapConditioner:
        """Reads the text side of ``text_encoder/`` and ``tokenizer/`` of a model folder, in float32."""
        from transformers import ClapTextModelWithProjection

        model = ModelFolder(folder)
        model.require("text_encoder/config.json", "tokenizer/tokenizer_config.json")
        encoder = model.network(ClapTextModelWithProjection, "text_encoder", ignored=_SOUND_SIDE)
        tokenizer = model.tokenizer("tokenizer")
        check_clap_tokenizer(tokenizer, encoder.text_model.config, folder / "tokenizer")
        return cls(encoder, tokenizer, model.fingerprint("text_encoder", "tokenizer"))

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Conditioning:
        ids, mask = self.tokens(captions, device=self.text_model.device)
        embedding = self.projection(self.text_model(ids, attention_mask=mask).pooler_output)
        return Conditioning({"embedding": torch.nn.functional.normalize(embedding, dim=-1)})

    def null(self) -> Conditioning:
        return self([""])


def longest_caption(config: ClapTextConfig) -> int:
    """The most tokens that CLAP's text encoder (RoBERTa) can read; its positions begin after the one for padding."""
    return int(config.max_position_embeddings - config.pad_token_id - 1)


def check_clap_tokenizer(tokenizer: PreTrainedTokenizerBase, config: ClapTextConfig, where: object) -> None:
    """Checks that a tokenizer belongs to CLAP's text encoder.

    Args:
        tokenizer: the tokenizer.
        config: the configuration of the text encoder.
        where: the folder of the tokenizer, for the message.

    Raises:
        UserError: if the two do not belong together.
    """
    check_tokenizer(tokenizer, config, where)
    if tokenizer.pad_token_id != config.pad_token_id:  # the encoder computes positions from it
        raise UserError(
            f"{where} pads with token {tokenizer.pad_token_id}, but its text encoder with {config.pad_token_id}; put"
            " the tokenizer of the same model there"
        )


class AudioLDMFamily(Family):
    """AudioLDM (Liu et al. 2023), sampled by default in 10 steps with guidance scale 2.5."""

    num_steps = 10
    guidance_scale = 2.5

    def denoiser(self, folder: Path, *, dtype: torch.dtype, weights: bool = True) -> AudioLDMDenoiser:
        return AudioLDMDenoiser.from_folder(folder, dtype=dtype, weights=weights)

    def conditioner(self, folder: Path) -> ClapConditioner:
        return ClapConditioner.from_folder(folder)

    def codec(self, folder: Path) -> MelCodec:
        return MelCodec.from_folder(folder)
