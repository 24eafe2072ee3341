"""TangoFlux's small networks between text encoder and transformer: the pooled text and the token of the duration.

It needs torch and diffusers alone, so that a model folder may carry this file for those who have no more than these.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

# ModelMixin has to be a name of this module: diffusers finds out there how to load what a model_index.json names.
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class CaptionProjection(ModelMixin, ConfigMixin):
    """What TangoFlux's transformer is given of a caption, from the states of the text encoder and the duration.

    Args:
        width: the width of the text encoder's states, which is also that of the pooled text and of the duration.
        max_duration: the longest duration in seconds; longer ones are taken for it.
        num_frequencies: the number of frequencies of the duration's sinusoids.
    """

    @register_to_config
    def __init__(self, width: int = 1024, max_duration: float = 30.0, num_frequencies: int = 128) -> None:
        super().__init__()
        self.max_duration = max_duration
        self.pooled = nn.Linear(width, width)
        self.frequencies = nn.Parameter(torch.zeros(num_frequencies))
        self.duration = nn.Linear(1 + 2 * num_frequencies, width)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # noqa: ANN401 - theirs
        """Writes a folder as diffusers does, with this file, which diffusers does not have."""
        super().save_pretrained(save_directory, **kwargs)
        shutil.copyfile(__file__, Path(save_directory) / "caption_projection.py")

    def forward(self, states: Tensor, mask: Tensor, seconds: float) -> tuple[Tensor, Tensor]:
        """The sequence that the transformer attends to, and its global input.

        Args:
            states: the last hidden states of the text encoder, (batch, tokens, width).
            mask: which of them are those of tokens, not of padding, (batch, tokens), bool.
            seconds: the duration of the clips.

        Returns:
            The duration as a first token before all states, (batch, 1 + tokens, width); and the pooled text, the
            projected mean of the states of tokens, (batch, width).
        """
        weights = mask[..., None].to(states.dtype)
        mean = (states * weights).sum(dim=1) / weights.sum(dim=1)
        token = self.duration(self._features(seconds)).expand(len(states), 1, -1)
        return torch.cat([token, states], dim=1), nn.functional.relu(self.pooled(mean))

    def _features(self, seconds: float) -> Tensor:
        """The share of the longest duration and its sines and cosines, (1, 1, 1 + 2 num_frequencies)."""
        share = min(max(seconds, 0.0), self.max_duration) / self.max_duration
        angles = share * self.frequencies * 2 * torch.pi
        return torch.cat([angles.new_full((1,), share), angles.sin(), angles.cos()])[None, None]
