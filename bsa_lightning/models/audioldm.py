"""AudioLDM as a model folder: a UNet on one CLAP text embedding, Tango's mel codec."""

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
"""Beginnings of the weights that a whole CLAP has beyond its text side."""


class AudioLDMDenoiser(UNetDenoiser):
    """The embedding of a caption joins the time embedding, as a class label does; nothing is attended to."""

    def inputs(self, conditioning: Conditioning) -> dict[str, Tensor | None]:
        return {"encoder_hidden_states": None, "class_labels": conditioning.tensors["embedding"]}

    def example_conditioning(self, batch_size: int) -> Conditioning:
        width = self.unet.config.projection_class_embeddings_input_dim
        return Conditioning({"embedding": torch.zeros(batch_size, width)})


class ClapConditioner(Conditioner):
    """One text embedding a caption, (batch, width) and of length 1; the null is that of the empty caption.

    Args:
        encoder: CLAP with its text side, the only one that is used.
        tokenizer: its own.
        fingerprint: of both.
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
        """Reads ``text_encoder/`` (text side alone) and ``tokenizer/`` of a model folder, in float32."""
        from transformers import ClapTextModelWithProjection

        model = ModelFolder(folder)
        model.require("text_encoder/config.json", "tokenizer/tokenizer_config.json")
        encoder = model.network(ClapTextModelWithProjection, "text_encoder", beside=_SOUND_SIDE)
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
    """Most tokens that CLAP's text encoder has positions for, which RoBERTa counts from behind that of padding."""
    return int(config.max_position_embeddings - config.pad_token_id - 1)


def check_clap_tokenizer(tokenizer: PreTrainedTokenizerBase, config: ClapTextConfig, where: object) -> None:
    """Refuses a tokenizer that is not that of CLAP's text encoder.

    Raises:
        UserError: naming what does not fit.
    """
    check_tokenizer(tokenizer, config, where)
    if tokenizer.pad_token_id != config.pad_token_id:  # by which the encoder counts positions
        raise UserError(
            f"{where} pads with token {tokenizer.pad_token_id}, but its text encoder with {config.pad_token_id}; put"
            " the tokenizer of the same model there"
        )


class AudioLDMFamily(Family):
    """Liu et al. 2023; sampled in 10 steps at guidance 2.5."""

    num_steps = 10
    guidance_scale = 2.5

    def denoiser(self, folder: Path, *, dtype: torch.dtype, weights: bool = True) -> AudioLDMDenoiser:
        return AudioLDMDenoiser.from_folder(folder, dtype=dtype, weights=weights)

    def conditioner(self, folder: Path) -> ClapConditioner:
        return ClapConditioner.from_folder(folder)

    def codec(self, folder: Path) -> MelCodec:
        return MelCodec.from_folder(folder)
