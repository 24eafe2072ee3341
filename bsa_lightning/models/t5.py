"""The text side of Tango: the last hidden states of a T5 encoder, with their mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bsa_lightning.models.base import Conditioner
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.tokens import CaptionTokens, check_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel


T5_DECODER = r"(decoder|lm_head)\."
"""A pattern of the names of weights that a complete T5 model has beyond its encoder."""


class T5Conditioner(Conditioner):
    """A T5 encoder: the sequence ``states`` (batch, tokens, width).

    The null conditioning is that of the empty caption, whose only valid token is the end of sequence.

    Args:
        encoder: the T5 encoder.
        tokenizer: the tokenizer of the encoder.
        fingerprint: the digest of encoder and tokenizer.
        longest: the most tokens of a caption, at least 1, including the end of sequence; ``None`` is the tokenizer's
            maximum, or Tango's 512 if the tokenizer does not have one.
    """

    def __init__(
        self,
        encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        fingerprint: str,
        *,
        longest: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.tokens = CaptionTokens(tokenizer, name="the T5 text encoder", longest=longest)
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path) -> T5Conditioner:
        """Reads ``text_encoder/`` and ``tokenizer/`` of a model folder, in float32."""
        from transformers import T5EncoderModel

        model = ModelFolder(folder)
        model.require("text_encoder/config.json", "tokenizer/tokenizer_config.json")
        encoder, tokenizer = (
            model.network(T5EncoderModel, "text_encoder", ignored=T5_DECODER),
            model.tokenizer("tokenizer"),
        )
        check_tokenizer(tokenizer, encoder.config, folder / "tokenizer")
        return cls(encoder, tokenizer, model.fingerprint("text_encoder", "tokenizer"))

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Conditioning:
        ids, mask = self.tokens(captions, device=self.encoder.device)
        states = self.encoder(ids, attention_mask=mask).last_hidden_state
        return Conditioning({"states": states}, {"states": mask.bool()})

    def null(self) -> Conditioning:
        return self([""])
