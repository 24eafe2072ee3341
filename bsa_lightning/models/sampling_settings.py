"""How a model is sampled by default, and the guidance scales that it supports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.provenance import is_integer, is_number

_GUIDANCE = ("outside", "baked", "embedded")
LARGEST_SCALE = 1000
"""The largest guidance scale; far smaller ones already produce noise."""


@dataclass(frozen=True)
class SamplingSettings:
    """How a model is sampled by default.

    Args:
        num_steps: the number of sampling steps N, at least 1.
        guidance: the place of guidance: "outside" of the network by a second evaluation, "baked" into the network, or
            "embedded" as an input of the network.
        guidance_scale: the default guidance scale g, from 0 to 1000.
        guidance_range: the smallest and the largest g that a network with embedded guidance was trained with, each from
            0 to 1000; ``None`` if all are supported.

    Raises:
        UserError: if a setting is out of its range.
    """

    num_steps: int
    guidance: str
    guidance_scale: float
    guidance_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not is_integer(self.num_steps, at_least=1):
            raise _wrong("num_steps", self.num_steps, "a whole number of at least 1")
        if self.guidance not in _GUIDANCE:
            raise _wrong("guidance", self.guidance, "outside, baked or embedded")
        if not _is_scale(self.guidance_scale):
            raise _wrong("guidance_scale", self.guidance_scale, f"a number from 0 to {LARGEST_SCALE}")
        if self.guidance_range is not None and not _is_range(self.guidance_range):
            raise _wrong(
                "guidance_range", self.guidance_range, f"the lowest and the highest scale, from 0 to {LARGEST_SCALE}"
            )

    @classmethod
    def from_provenance(cls, provenance: Mapping[str, Any], *, num_steps: int, guidance_scale: float) -> Self:
        """The settings in a provenance, with the given ``num_steps`` and ``guidance_scale`` if it lacks them."""
        bounds = provenance.get("guidance_range")
        return cls(
            num_steps=provenance.get("num_steps", num_steps),
            guidance=provenance.get("guidance", "outside"),
            guidance_scale=provenance.get("guidance_scale", guidance_scale),
            guidance_range=tuple(bounds) if isinstance(bounds, list) else bounds,
        )

    def for_index(self) -> dict[str, Any]:
        """The entries of ``model_index.json`` from which a pipeline that the folder carries takes its defaults."""
        return {
            "num_inference_steps": self.num_steps,
            "guidance": self.guidance,
            "guidance_scale": self.guidance_scale,
            "guidance_range": None if self.guidance_range is None else list(self.guidance_range),
        }

    def scale(self, requested: float | None = None) -> float:
        """The guidance scale to call ``predictor`` with so that the sound has the guidance scale g.

        Args:
            requested: the guidance scale g; ``None`` is the model's default.

        Raises:
            UserError: if the model does not support g.
        """
        g = self.guidance_scale if requested is None else requested
        if not 0 <= g <= LARGEST_SCALE:
            raise UserError(f"guidance scale is {g}, but must be from 0 to {LARGEST_SCALE}; 1 is no guidance")
        if self.guidance == "baked":
            if g != self.guidance_scale:
                raise UserError(
                    f"guidance scale is {g}, but this model has {self.guidance_scale} baked in; leave the scale out"
                )
            return 1.0
        if self.guidance_range is not None and not self.guidance_range[0] <= g <= self.guidance_range[1]:
            low, high = self.guidance_range
            raise UserError(f"guidance scale is {g}, but this model was trained for scales from {low} to {high}")
        return g


def in_file(path: Path, error: UserError) -> UserError:
    """The same error, with the file in its message."""
    return UserError(f"in {path}, {error}")


def _is_scale(value: object) -> bool:
    return is_number(value, at_least=0) and value <= LARGEST_SCALE


def _is_range(bounds: object) -> bool:
    return isinstance(bounds, tuple) and len(bounds) == 2 and all(map(_is_scale, bounds)) and bounds[0] <= bounds[1]


def _wrong(name: str, value: object, meaning: str) -> UserError:
    return UserError(f"{name} is {json.dumps(value, default=str)}, but must be {meaning}; correct it")
