"""Captions to tokens: never more than the text encoder reads, and never cut without a word."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.provenance import is_whole

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_UNKNOWN = 10**9
"""A tokenizer whose files do not tell its greatest length says 10^30."""
_SHOWN = 60
"""Characters of a caption, and of what is cut away from it, in a warning."""
_told: set[tuple[str, int, str]] = set()
"""Which captions were said to be cut, once per process: name of the encoder, its length, caption."""


class CaptionTokens:
    """Captions as tokens of one length, with a warning for each that is cut.

    Args:
        tokenizer: of the text encoder.
        name: of the text encoder, for the warning.
        longest: most tokens that the encoder reads, at least 1; ``None`` if it has no bound of its own.
        default: most tokens where neither the tokenizer nor ``longest`` says, at least 1.
        pad_to_longest: whether all captions get as many tokens as the encoder reads at most, rather than as many as the
            longest of them has.

    Raises:
        UserError: if a length is out of its range.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        longest: int | None = None,
        default: int = 512,
        pad_to_longest: bool = False,
    ) -> None:
        told = tokenizer.model_max_length
        bounds = [bound for bound in (told if told < _UNKNOWN else None, longest) if bound is not None]
        self.tokenizer = tokenizer
        self.name = name
        self.longest = min(bounds, default=default)
        self.padding = "max_length" if pad_to_longest else "longest"
        if not is_whole(self.longest, least=1):
            raise UserError(f"the most tokens of {name} are {self.longest}, but must be at least 1")

    def __call__(self, captions: Sequence[str], *, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Token numbers and mask, each (captions, tokens) in int64, on ``device``."""
        captions = list(captions)
        whole = self.tokenizer(captions, verbose=False)["input_ids"]
        for caption, ids in zip(captions, whole, strict=True):
            if len(ids) > self.longest and (key := (self.name, self.longest, caption)) not in _told:
                _told.add(key)
                self._warn(caption, len(ids))
        tokens = self.tokenizer(
            captions, padding=self.padding, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        return tokens["input_ids"].to(device), tokens["attention_mask"].to(device)

    def _warn(self, caption: str, num_tokens: int) -> None:
        kept = self.longest - self.tokenizer.num_special_tokens_to_add()
        words = self.tokenizer(caption, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        start = words["offset_mapping"][kept][0] if kept < len(words["offset_mapping"]) else len(caption)
        _log.warning(
            'the caption "%s" has %d tokens, but %s reads %d: it is cut before "%s"',
            _beginning(caption),
            num_tokens,
            self.name,
            self.longest,
            _beginning(caption[start:].strip()),
        )


def _beginning(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, where: object) -> None:
    """Refuses a tokenizer that is not whole, or whose tokens are not those of an encoder.

    Args:
        tokenizer: as it was read.
        config: of the encoder: its vocabulary and the tokens that end a caption and fill it up.
        where: it was read from.

    Raises:
        UserError: naming what does not fit.
    """
    vocabulary = tokenizer.get_vocab()
    # Without its vocabulary transformers makes a tokenizer of special tokens, to which all captions are one.
    if len(vocabulary.keys() - set(tokenizer.all_special_tokens)) < 2:
        raise UserError(
            f"{where} knows no words, only {len(vocabulary)} tokens; put the tokenizer.json of its model there"
        )
    if max(vocabulary.values()) >= config.vocab_size:
        raise UserError(
            f"{where} has tokens up to number {max(vocabulary.values())}, but its text encoder knows"
            f" {config.vocab_size}; put the tokenizer of the same model there"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"{where} names no pad_token; set it in tokenizer_config.json")
    longest, special = tokenizer.model_max_length, tokenizer.num_special_tokens_to_add()
    if not is_whole(longest, least=special + 1):
        raise UserError(
            f"model_max_length is {longest} in {where}, but must be a whole number above {special}, the tokens that"
            " each caption gets; correct it in tokenizer_config.json"
        )
    if tokenizer("", verbose=False)["input_ids"][-1:] != [config.eos_token_id]:
        raise UserError(
            f"{where} does not end a caption with token {config.eos_token_id}, as its text encoder expects; put the"
            " tokenizer of the same model there"
        )
