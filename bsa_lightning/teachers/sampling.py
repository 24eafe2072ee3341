"""How a model is meant to be sampled, and at which guidance scales it can be."""

from __future__ import annotations

from dataclasses import dataclass

from bsa_lightning.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How a model is meant to be sampled.

    Args:
        num_steps: N of the sampler.
        guidance: "outside" the network, "baked" into it, or "embedded" as its input.
        guidance_scale: g, unless another is asked for.
        guidance_range: lowest and highest g that an embedded network was trained with.
    """

    num_steps: int
    guidance: str
    guidance_scale: float
    guidance_range: tuple[float, float] | None = None

    def scale(self, requested: float | None = None) -> float:
        """What ``guided.predictor`` needs so that sound comes out at the requested g; none asks for the model's own.

        Raises:
            UserError: if the network cannot do the requested one.
        """
        g = self.guidance_scale if requested is None else requested
        if g < 0:
            raise UserError(f"guidance scale is {g}, but must be at least 0; 1 is no guidance")
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
