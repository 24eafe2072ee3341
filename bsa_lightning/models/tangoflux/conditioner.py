"""The text side of TangoFlux: states of a T5 encoder, their projected mean, and a token of the duration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from bsa_lightning.models.base import Conditioner
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.t5 import T5_DECODER
from bsa_lightning.models.tangoflux.caption_projection import CaptionProjection
from bsa_lightning.models.tokens import CaptionTokens, check_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel


class TangoFluxConditioner(Conditioner):
    """A T5 encoder: the sequence ``states`` (batch, 1 + tokens, w), the duration first, and ``pooled`` (batch, w).

    The null conditioning is the empty caption padded to the most tokens, with all of its padding visible; of these
    states a clip gets as many as its caption has, see :meth:`TangoFluxDenoiser.null_beside`.

    Args:
        encoder: the T5 encoder.
        tokenizer: the tokenizer of the encoder.
        projection: the networks of the pooled text and of the duration.
        seconds: the duration of each clip.
        fingerprint: the digest of all of these.
    """

    def __init__(
        self,
        encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        projection: CaptionProjection,
        *,
        seconds: float,
        fingerprint: str,
    ) -> None:
        super().__init__()
        tokenizer.padding_side = "right"  # as in the original; the null's states depend on it
        self.encoder, self.tokenizer, self.projection = encoder, tokenizer, projection
        name = "the T5 text encoder"
        self.tokens = CaptionTokens(tokenizer, name=name)
        self.all_tokens = CaptionTokens(tokenizer, name=name, pad_to_longest=True)
        self.seconds = seconds
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path, *, seconds: float) -> Self:
        """Reads ``text_encoder/``, ``tokenizer/`` and ``projection/`` of a model folder, in float32.

        Args:
            folder: the folder.
            seconds: the duration of each clip.

        Raises:
            UserError: if a part cannot be read, or tokenizer and encoder do not belong together.
        """
        from transformers import T5EncoderModel

        model = ModelFolder(folder)
        model.require("text_encoder/config.json", "tokenizer/tokenizer_config.json", "projection/config.json")
        encoder, tokenizer = (
            model.network(T5EncoderModel, "text_encoder", ignored=T5_DECODER),
            model.tokenizer("tokenizer"),
        )
        check_tokenizer(tokenizer, encoder.config, folder / "tokenizer")
        return cls(
            encoder,
            tokenizer,
            model.network(CaptionProjection, "projection"),
            seconds=seconds,
            fingerprint=f"{model.fingerprint('text_encoder', 'tokenizer', 'projection')}-{seconds:g}s",
        )

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Conditioning:
        """``states`` (batch, 1 + tokens, w), masked where the caption has ended, and ``pooled`` (batch, w)."""
        tensors, mask = self._encode(*self.tokens(captions, device=self.encoder.device))
        return Conditioning(tensors, {"states": torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)})

    @torch.no_grad()
    def null(self) -> Conditioning:
        tensors, _ = self._encode(*self.all_tokens([""], device=self.encoder.device))
        return Conditioning.unpadded(tensors, sequences=["states"])

    def _encode(self, ids: Tensor, mask: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        states, pooled = self.projection(
            self.encoder(ids, attention_mask=mask).last_hidden_state, mask.bool(), self.seconds
        )
        return {"states": states, "pooled": pooled}, mask.bool()
