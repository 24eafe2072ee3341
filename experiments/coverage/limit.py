"""How much of a Frechet distance's bias is left at infinitely many clips, where the limit is 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bsa_lightning.evaluation.metrics.frechet import frechet_distance
from bsa_lightning.evaluation.metrics.frechet_at_infinity import at_infinity, refuse_short
from bsa_lightning.evaluation.metrics.kernel import NoValueError


@dataclass(frozen=True)
class Limit:
    """Clips from the reference's own Gaussian, of independent dimensions alike.

    Args:
        num_clips: generated clips.
        num_rows: rows of a clip.
        num_features: numbers of a row.
        alike: the share of the variance of a row that all rows of its clip have in common.
        repeats: draws.
    """

    num_clips: int
    num_rows: int
    num_features: int
    alike: float = 0.0
    repeats: int = 10

    def row(self) -> dict[str, str]:
        """For a table: the distance of all clips, that at infinity, and the share of the first that the second has."""
        n, k, d = self.num_clips, self.num_rows, self.num_features
        reference = {"mean1": torch.zeros(d, dtype=torch.float64), "cov1": torch.eye(d, dtype=torch.float64)}
        lines = []
        for seed in range(self.repeats):
            generator = torch.Generator().manual_seed(seed)
            shared = torch.randn(n, 1, d, generator=generator, dtype=torch.float64)
            own = torch.randn(n, k, d, generator=generator, dtype=torch.float64)
            clips = math.sqrt(self.alike) * shared + math.sqrt(1 - self.alike) * own

            def distance(at: torch.Tensor, clips: torch.Tensor = clips) -> float:
                rows = clips[at].flatten(0, 1)
                return float(frechet_distance(**reference, mean2=rows.mean(0), cov2=rows.T.cov()))

            lines.append(at_infinity(distance, num_clips=n, seed=seed))
        whole = math.fsum(line.distances[-1] for line in lines) / self.repeats
        limit = math.fsum(line.distance for line in lines) / self.repeats
        numbers = {"of_all": whole, "at_infinity": limit, "left": limit / whole}
        numbers["r_squared"] = math.fsum(line.r_squared for line in lines) / self.repeats
        case = {"clips": str(n), "rows": str(k), "features": str(d), "alike": f"{self.alike:g}"}
        return case | {name: f"{value:.3f}" for name, value in numbers.items()} | {"has_value": self._has_value()}

    def _has_value(self) -> str:
        try:
            rows = self.num_clips * self.num_rows
            refuse_short(num_clips=self.num_clips, num_rows=rows, num_features=self.num_features)
        except NoValueError:
            return "no"
        return "yes"


LIMITS = (
    Limit(110, 1, 256), Limit(256, 1, 256), Limit(512, 1, 256), Limit(1024, 1, 256), Limit(2048, 1, 256),
    Limit(512, 1, 64), Limit(256, 2, 64), Limit(51, 10, 64, 0.6), Limit(102, 10, 64, 0.6), Limit(256, 10, 64, 0.6),
    Limit(102, 10, 64, 0.9), Limit(256, 10, 64, 0.9), Limit(256, 10, 64),
)  # fmt: skip
