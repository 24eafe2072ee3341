"""A T5 encoder and its tokenizer as a Conditioner: last hidden states with their mask, as Tango uses them."""

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


WHOLE_T5 = r"(decoder|lm_head)\."
"""Beginnings of the weights that a whole T5 has beyond its encoder."""


class T5Conditioner(Conditioner):
    """The null conditioning is T5 of the empty caption: its one valid token is the end of sequence.

    Args:
        encoder: T5.
        tokenizer: its own.
        fingerprint: of both.
        longest: most tokens of a caption, at least 1; ``None`` takes what the tokenizer says, else Tango's 512.
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
            model.network(T5EncoderModel, "text_encoder", beside=WHOLE_T5),
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
