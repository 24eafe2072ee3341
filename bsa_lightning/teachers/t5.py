"""A T5 encoder and its tokenizer as a Conditioner: last hidden states with their mask, as Tango uses them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bsa_lightning.teachers.base import Conditioner, Conditioning
from bsa_lightning.teachers.hashing import sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel


class T5Conditioner(Conditioner):
    """The null conditioning is T5 of the empty caption: its one valid token is the end of sequence."""

    sequences = ("states",)

    def __init__(self, encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path) -> T5Conditioner:
        """Reads ``text_encoder/`` and ``tokenizer/`` of a model folder, in float32."""
        from transformers import AutoTokenizer, T5EncoderModel

        return cls(
            T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval(),
            AutoTokenizer.from_pretrained(folder / "tokenizer"),
            sha256_of(folder / "text_encoder", folder / "tokenizer"),
        )

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Conditioning:
        tokens = self.tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt")
        ids, mask = (tokens[name].to(self.encoder.device) for name in ("input_ids", "attention_mask"))
        states = self.encoder(ids, attention_mask=mask).last_hidden_state
        return Conditioning({"states": states}, {"states": mask.bool()})

    def null(self) -> Conditioning:
        return self([""])
