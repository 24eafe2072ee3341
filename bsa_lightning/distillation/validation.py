"""What a validation says: means over all values of all batches and ranks, split by SNR where that tells more."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

_EDGES = (0.1, 1.0, 5.0)
ERROR_BINS = ("val/error_snr<0.1", "val/error_snr<1", "val/error_snr<5", "val/error_snr>5")
"""The distillation error without its weight, by the SNR at which it was made."""
_NAMES = ("val/distillation_error", "val/trajectory_error", *ERROR_BINS)


class ValidationErrors(nn.Module):
    """Gathers the errors of a validation."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.ModuleList(MeanMetric(nan_strategy="disable") for _ in _NAMES)

    def update(self, *, weighted: Tensor, distance: Tensor, error: Tensor, snr: Tensor) -> None:
        """Adds a batch: weighted distillation error, trajectory error, error without weight, and its SNR, (batch,)."""
        bins = torch.bucketize(snr, torch.tensor(_EDGES, device=snr.device, dtype=snr.dtype))
        by_snr = [error[bins == bin_] for bin_ in range(len(ERROR_BINS))]
        for mean, values in zip(self._metrics, [weighted, distance, *by_snr], strict=True):
            mean.update(values)

    def compute(self) -> dict[str, Tensor]:
        """The means by name, and a fresh start; a bin of SNR without any value is left out, on every rank alike."""
        found = {name: mean.compute() for name, mean in zip(_NAMES, self._metrics, strict=True)}
        for mean in self._metrics:
            mean.reset()
        return {name: value for name, value in found.items() if value.isfinite() or name not in ERROR_BINS}

    @property
    def _metrics(self) -> list[MeanMetric]:
        return cast("list[MeanMetric]", list(self.means))
