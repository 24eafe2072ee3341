"""Captions to tokens, no more than the text encoder can read, with a warning for each caption that is cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.provenance import is_integer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_UNKNOWN = 10**9
"""A maximum length from which on it is unknown; transformers then uses 10^30."""
_SHOWN = 60
"""The most characters of a caption, and of the part that is cut, in a warning."""
_warned: set[tuple[str, int, str]] = set()
"""The warnings of this process so far, each as (name of the encoder, its longest caption in tokens, caption)."""


class CaptionTokens:
    """Captions as padded tokens, with a warning for each caption that is cut.

    Args:
        tokenizer: the tokenizer of the text encoder.
        name: the name of the text encoder, for the warning.
        longest: the most tokens that the encoder can read, at least 1; ``None`` if it has no limit.
        default: the most tokens if neither ``longest`` nor the tokenizer limits them, at least 1.
        pad_to_longest: whether captions are padded to the most tokens that the encoder can read, rather than to the
            longest caption of the batch.

    Raises:
        UserError: if the most tokens are not at least 1.
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
        stated = tokenizer.model_max_length
        bounds = [bound for bound in (stated if stated < _UNKNOWN else None, longest) if bound is not None]
        self.tokenizer = tokenizer
        self.name = name
        self.longest = min(bounds, default=default)
        self.padding = "max_length" if pad_to_longest else "longest"
        if not is_integer(self.longest, at_least=1):
            raise UserError(f"the most tokens of {name} are {self.longest}, but must be at least 1")

    def __call__(self, captions: Sequence[str], *, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """The token numbers and the mask (0 for padding), each (captions, tokens), int64, on ``device``."""
        captions = list(captions)
        uncut = self.tokenizer(captions, verbose=False)["input_ids"]
        for caption, ids in zip(captions, uncut, strict=True):
            if len(ids) > self.longest and (key := (self.name, self.longest, caption)) not in _warned:
                _warned.add(key)
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


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, where: object) -> None:
    """Checks that a tokenizer has a vocabulary and that its tokens are among those of a text encoder.

    Args:
        tokenizer: the tokenizer.
        config: the configuration of the encoder, with the size of its vocabulary.
        where: the folder of the tokenizer, for the message.

    Raises:
        UserError: if the tokenizer is incomplete, or does not belong to the encoder.
    """
    vocabulary = tokenizer.get_vocab()
    # Without a vocabulary, transformers makes a tokenizer of special tokens alone, for which all captions are equal.
    if len(vocabulary.keys() - set(tokenizer.all_special_tokens)) < 2:
        raise UserError(
            f"{where} has no words, only {len(vocabulary)} tokens; put the tokenizer.json of its model there"
        )
    if max(vocabulary.values()) >= config.vocab_size:
        raise UserError(
            f"{where} has tokens up to number {max(vocabulary.values())}, but its text encoder knows"
            f" {config.vocab_size}; put the tokenizer of the same model there"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"{where} has no pad_token; set it in tokenizer_config.json")
    longest, special = tokenizer.model_max_length, tokenizer.num_special_tokens_to_add()
    if not is_integer(longest, at_least=special + 1):
        raise UserError(
            f"model_max_length is {longest} in {where}, but must be a whole number above {special}, the tokens that"
            " each caption gets; correct it in tokenizer_config.json"
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, where: object) -> None:
    """Checks that a tokenizer has a vocabulary and that its tokens are those of a text encoder.

    Args:
        tokenizer: the tokenizer.
        config: the configuration of the encoder, with the size of its vocabulary and its special tokens.
        where: the folder of the tokenizer, for the message.

    Raises:
        UserError: if the tokenizer is incomplete, or does not belong to the encoder.
    """
    check_vocabulary(tokenizer, config, where)
    if tokenizer("", verbose=False)["input_ids"][-1:] != [config.eos_token_id]:
        raise UserError(
            f"{where} does not end a caption with token {config.eos_token_id}, as its text encoder expects; put the"
            " tokenizer of the same model there"
        )
