"""What a validation says: means over all values of all batches and ranks, split by SNR where that tells more."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, SumMetric

from bsa_lightning.diffusion.losses import Errors

_EDGES = (0.1, 1.0, 5.0)
ERROR_BINS = ("val/error_snr<0.1", "val/error_snr<1", "val/error_snr<5", "val/error_snr>5")
"""The distillation error without its weight, by the SNR at which it was made."""
LOSS_BINS, GRADIENT_BINS = (tuple(name.replace("error", part) for name in ERROR_BINS) for part in ("loss", "gradient"))
"""What each bin of SNR adds to the loss (they sum up to it), and to the norm of its gradient by the prediction."""
_NAMES = ("val/distillation_error", "val/trajectory_error", *LOSS_BINS, *GRADIENT_BINS, *ERROR_BINS)


class ValidationErrors(nn.Module):
    """Gathers the errors of a validation."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.ModuleList(MeanMetric(nan_strategy="disable") for _ in _NAMES)

    def update(self, errors: Errors, *, distance: Tensor, counts: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            errors: the parts of the distillation loss.
            distance: the trajectory error, (batch,).
            counts: False for clips that only fill the batch, (batch,); they are left out.
        """
        weight, error, snr = errors.weight.float(), errors.error, errors.snr
        if counts is not None:
            weight, distance, error, snr = (part[counts] for part in (weight, distance, error, snr))
        bins = torch.bucketize(snr, torch.tensor(_EDGES, device=snr.device, dtype=snr.dtype))
        inside = [bins == bin_ for bin_ in range(len(ERROR_BINS))]
        loss, gradient = weight * error, weight * error.sqrt()  # of w |x - x*|^2, but for a constant
        by_loss, by_gradient = ([torch.where(at, part, 0) for at in inside] for part in (loss, gradient))
        values = [loss, distance, *by_loss, *by_gradient, *(error[at] for at in inside)]
        for mean, value in zip(self._metrics, values, strict=True):
            mean.update(value)

    def compute(self) -> dict[str, Tensor]:
        """The means by name, and a fresh start; a bin of SNR without any value is left out, on every rank alike."""
        found = {name: mean.compute() for name, mean in zip(_NAMES, self._metrics, strict=True)}
        _reset(*self._metrics)
        return {name: value for name, value in found.items() if value.isfinite() or name not in ERROR_BINS}

    @property
    def _metrics(self) -> list[MeanMetric]:
        return cast("list[MeanMetric]", list(self.means))


class WeightedMean(nn.Module):
    """The mean of batches that count for unequally many clips, over all batches and ranks; what is no number stays so.

    torchmetrics' own mean ignores weights where it lets such values through, and Lightning's rounds counts between
    ranks to whole numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values, self.weights = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")

    def update(self, value: Tensor, weight: Tensor) -> None:
        """Adds the mean of a batch, and for how many clips it counts."""
        self.values.update(value * weight)
        self.weights.update(weight)

    def compute(self) -> Tensor:
        """The mean, and a fresh start."""
        mean: Tensor = self.values.compute() / self.weights.compute()
        _reset(self.values, self.weights)
        return mean


def _reset(*metrics: Metric) -> None:
    """What a reset makes in the inference mode of one trainer could not be added to outside of it, by the next."""
    with torch.inference_mode(False):
        for metric in metrics:
            metric.reset()
