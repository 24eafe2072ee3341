"""The text side of Stable Audio 3: the states of a T5Gemma encoder, and the embedded duration of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.base import Conditioner
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.tokens import CaptionTokens, check_vocabulary

if TYPE_CHECKING:
    from diffusers import StableAudio3DurationEmbedder
    from transformers import PreTrainedTokenizerBase, T5GemmaEncoderModel

NUM_TOKENS = 256
"""The number of tokens to which the pipeline pads each caption; it is the most of a caption, too."""


class StableAudio3Conditioner(Conditioner):
    """A T5Gemma encoder: the sequence ``states`` (batch, tokens, w) of valid tokens, and ``duration`` (batch, w).

    The encoder reads captions padded to 256 tokens, as in the pipeline. Only the states of valid tokens are kept, since
    the network puts an embedding of its own in the place of all others. They come first, wherever the tokenizer puts
    its padding: the network does not tell the order of states. The null conditioning is that of the empty caption with
    the same duration; for a tokenizer that does not mark the start or the end of a caption, it has no state at all.

    Args:
        encoder: the T5Gemma encoder.
        tokenizer: the tokenizer of the encoder.
        embedder: the embedding of durations in seconds.
        seconds: the duration of each clip.
        fingerprint: the digest of all of these.
    """

    def __init__(
        self,
        encoder: T5GemmaEncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        embedder: StableAudio3DurationEmbedder,
        *,
        seconds: float,
        fingerprint: str,
    ) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.embedder = encoder, tokenizer, embedder
        self.tokens = CaptionTokens(tokenizer, name="the T5Gemma text encoder", longest=NUM_TOKENS, pad_to_longest=True)
        self.seconds = seconds
        self.fingerprint = fingerprint

    @classmethod
    def from_folder(cls, folder: Path, *, seconds: float) -> Self:
        """Reads ``text_encoder/``, ``tokenizer/`` and ``duration_embedder/`` of a model folder, in float32.

        Raises:
            UserError: if a part cannot be read, or the tokenizer is not that of the encoder or cuts captions earlier.
        """
        from diffusers import StableAudio3DurationEmbedder
        from transformers import T5GemmaEncoderModel

        model, parts = ModelFolder(folder), ("text_encoder", "tokenizer", "duration_embedder")
        model.require(*(f"{name}/config.json" for name in ("text_encoder", "duration_embedder")))
        encoder, tokenizer = model.network(T5GemmaEncoderModel, "text_encoder"), model.tokenizer("tokenizer")
        check_vocabulary(tokenizer, encoder.config.encoder, folder / "tokenizer")
        if tokenizer.model_max_length < NUM_TOKENS:
            raise UserError(
                f"model_max_length is {tokenizer.model_max_length} in {folder / 'tokenizer'}, but must be at least"
                f" {NUM_TOKENS}, the tokens that the network is given; correct it in tokenizer_config.json"
            )
        return cls(
            encoder,
            tokenizer,
            model.network(StableAudio3DurationEmbedder, "duration_embedder"),
            seconds=seconds,
            fingerprint=f"{model.fingerprint(*parts)}-{seconds:g}s",
        )

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Conditioning:
        ids, mask = self.tokens(captions, device=self.encoder.device)
        states = self.encoder(ids, attention_mask=mask).last_hidden_state
        states, valid = _valid_first(states, mask.bool())
        duration = self.embedder(torch.full((len(ids),), self.seconds, device=ids.device))
        return Conditioning({"states": states, "duration": duration}, {"states": valid})

    def null(self) -> Conditioning:
        return self([""])


def _valid_first(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The valid states (batch, length, w) in their order, followed by zeros, and their mask; the longest has no zeros.

    Zeros take the place of the other states, which may not be numbers where a caption has no valid token.
    """
    order = mask.int().argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(1).max())]
    valid = mask.gather(1, order)
    moved = states.gather(1, order[..., None].expand(-1, -1, states.shape[2]))
    return moved.where(valid[..., None], 0.0), valid
