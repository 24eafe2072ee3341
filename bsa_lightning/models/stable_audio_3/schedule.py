"""The noise schedule of Stable Audio 3: a flow uniform in log-SNR, on exactly the noise levels of its pipeline."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bsa_lightning.diffusion.flow import FlowSchedule, LogSNR


class StableAudio3Schedule(FlowSchedule):
    """``FlowSchedule(LogSNR())`` whose grid is that of ``StableAudio3Pipeline``, to the last bit of float32.

    The network's features of time reach frequency 10 000, so that one unit in the last place of sigma changes its
    output by up to 2e-4. The pipeline computes the noise levels of a run as one vector in float32, and torch's
    vectorized sigmoid rounds the last elements of a vector, those that do not fill a register, differently from the
    others. No function of t alone can therefore give the pipeline's noise levels for all numbers of steps. Instead,
    the times of the grid are those at which float64 sigma is the pipeline's float32 one; they are i / N within 2e-6.
    """

    def __init__(self) -> None:
        super().__init__(LogSNR())

    def grid(self, num_steps: int) -> Tensor:
        return _grid(num_steps)


@functools.cache
def _grid(num_steps: int) -> Tensor:
    """The num_steps + 1 times, from 1 to 0, in float64."""
    from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3 import logsnr_sigma_schedule

    warp = LogSNR()
    # A tensor that was made in inference mode, as in validation, cannot be used in training.
    with torch.inference_mode(False):
        sigma = torch.tensor(logsnr_sigma_schedule(num_steps, warp.low, warp.high), dtype=torch.float64)
        # The first is 1 and the scheduler appends a 0, where the warp is set to its ends.
        times = torch.zeros(num_steps + 1, dtype=torch.float64)
        times[0], times[1:-1] = 1, time_of(sigma[1:])
        return times


def time_of(sigma: Tensor) -> Tensor:
    """The times in (0, 1) at which the noise level is ``sigma``, of any shape, float64 and between the warp's ends."""
    warp = LogSNR()
    return (torch.logit(sigma) + warp.high) / (warp.high - warp.low)
