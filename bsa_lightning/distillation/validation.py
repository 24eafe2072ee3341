"""The metrics of a validation: means over all batches and ranks, the distillation error also by bin of the SNR."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, SumMetric

from bsa_lightning.diffusion.losses import Errors

_EDGES = (0.1, 1.0, 5.0)
ERROR_BINS = ("val/error_snr<0.1", "val/error_snr<1", "val/error_snr<5", "val/error_snr>5")
"""The names of the mean distillation errors, without their weight, by bin of the SNR."""
LOSS_BINS, GRADIENT_BINS = (tuple(name.replace("error", part) for name in ERROR_BINS) for part in ("loss", "gradient"))
"""The names of each bin's contribution to the loss, which is their sum, and to the norm of its gradient by x."""
_NAMES = ("val/distillation_error", "val/trajectory_error", *LOSS_BINS, *GRADIENT_BINS, *ERROR_BINS)


class ValidationErrors(nn.Module):
    """Accumulates the errors of a validation."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.ModuleList(MeanMetric(nan_strategy="disable") for _ in _NAMES)

    def update(self, errors: Errors, *, distance: Tensor, counts: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            errors: the parts of the distillation loss.
            distance: the trajectory error, (batch,).
            counts: whether a clip counts, (batch,) bool; clips that only fill the batch do not. ``None`` counts all.
        """
        error = errors.error
        bins = torch.bucketize(errors.snr, torch.tensor(_EDGES, dtype=errors.snr.dtype)).to(error.device)
        weight = errors.weight.float().to(error.device)
        if counts is not None:
            weight, distance, error, bins = (part[counts] for part in (weight, distance, error, bins))
        inside = [bins == bin_ for bin_ in range(len(ERROR_BINS))]
        loss, gradient = weight * error, weight * error.sqrt()  # w |x - x*|^2, and its gradient's norm up to a constant
        by_loss, by_gradient = ([torch.where(at, part, 0) for at in inside] for part in (loss, gradient))
        values = [loss, distance, *by_loss, *by_gradient, *(error[at] for at in inside)]
        for mean, value in zip(self._metrics, values, strict=True):
            mean.update(value)

    def compute(self) -> dict[str, Tensor]:
        """Returns the means by name and resets them; must be called on every rank.

        The distillation error of a bin of the SNR without any value is left out.
        """
        found = {name: mean.compute() for name, mean in zip(_NAMES, self._metrics, strict=True)}
        _reset(*self._metrics)
        return {name: value for name, value in found.items() if value.isfinite() or name not in ERROR_BINS}

    @property
    def _metrics(self) -> list[MeanMetric]:
        return cast("list[MeanMetric]", list(self.means))


class WeightedMean(nn.Module):
    """The mean of batches of unequally many clips, over all batches and ranks; NaN and infinity are passed on.

    torchmetrics' own mean ignores weights when it passes such values on, and Lightning's rounds weights to whole
    numbers when it reduces over ranks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values, self.weights = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")

    def update(self, value: Tensor, weight: Tensor) -> None:
        """Adds a batch.

        Args:
            value: the mean over the clips of the batch, a scalar.
            weight: the number of clips that count, a scalar.
        """
        self.values.update(value * weight)
        self.weights.update(weight)

    def compute(self) -> Tensor:
        """Returns the mean over all clips and resets it; must be called on every rank."""
        mean: Tensor = self.values.compute() / self.weights.compute()
        _reset(self.values, self.weights)
        return mean


def _reset(*metrics: Metric) -> None:
    """Resets metrics outside of inference mode, since tensors that are made in it cannot be updated outside of it."""
    with torch.inference_mode(False):
        for metric in metrics:
            metric.reset()
