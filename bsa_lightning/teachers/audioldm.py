"""AudioLDM as a model folder: a UNet on one CLAP text embedding, Tango's mel codec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bsa_lightning.teachers.base import Conditioner, Conditioning, require
from bsa_lightning.teachers.family import Family
from bsa_lightning.teachers.hashing import sha256_of
from bsa_lightning.teachers.mel_codec import MelCodec
from bsa_lightning.teachers.unet import UNetDenoiser

if TYPE_CHECKING:
    from transformers import ClapModel, ClapTextModelWithProjection, PreTrainedTokenizerBase


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

    sequences = ()

    def __init__(
        self, encoder: ClapTextModelWithProjection | ClapModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str
    ) -> None:
        super().__init__()
        self.text_model, self.projection = encoder.text_model, encoder.text_projection
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path) -> ClapConditioner:
        """Reads ``text_encoder/`` (text side alone) and ``tokenizer/`` of a model folder, in float32."""
        from transformers import AutoTokenizer, ClapTextModelWithProjection

        require(folder, "text_encoder/config.json", "tokenizer/tokenizer_config.json")
        return cls(
            ClapTextModelWithProjection.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval(),
            AutoTokenizer.from_pretrained(folder / "tokenizer"),
            sha256_of(folder / "text_encoder", folder / "tokenizer"),
        )

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Conditioning:
        tokens = self.tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt")
        ids, mask = (tokens[name].to(self.text_model.device) for name in ("input_ids", "attention_mask"))
        embedding = self.projection(self.text_model(ids, attention_mask=mask).pooler_output)
        return Conditioning({"embedding": torch.nn.functional.normalize(embedding, dim=-1)})

    def null(self) -> Conditioning:
        return self([""])


class AudioLDM(Family):
    """Liu et al. 2023; sampled in 10 steps at guidance 2.5."""

    num_steps = 10
    guidance_scale = 2.5

    def denoiser(self, folder: Path, *, dtype: torch.dtype, weights: bool = True) -> AudioLDMDenoiser:
        return AudioLDMDenoiser.from_folder(folder, dtype=dtype, weights=weights)

    def conditioner(self, folder: Path) -> ClapConditioner:
        return ClapConditioner.from_folder(folder)

    def codec(self, folder: Path) -> MelCodec:
        return MelCodec.from_folder(folder)
