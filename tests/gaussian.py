"""A teacher with known truth: for x ~ N(mean, std^2) the best denoiser has a closed form."""

import torch

from bsa_lightning.diffusion.flow import FlowSchedule, Identity, LogSNR, Shift
from bsa_lightning.diffusion.process import Prediction, expand
from bsa_lightning.diffusion.schedule import CosineSchedule, TableSchedule, scaled_linear
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning

FLOWS = {
    "flow": FlowSchedule(Identity()),
    "shifted flow": FlowSchedule(Shift(3.0)),
    "log-SNR flow": FlowSchedule(LogSNR()),
}
SCHEDULES = {
    "tango": TableSchedule(scaled_linear(beta_start=0.00085, beta_end=0.012, num_timesteps=1000)),
    "cosine": CosineSchedule(),
    **FLOWS,
}
"""The schedules that the mathematics must hold on."""


class GaussianTeacher:
    """``(z_t, t) -> Prediction`` with the posterior mean of x, exact in the precision of z_t."""

    def __init__(self, schedule, *, mean=0.7, std=1.6):
        self.schedule, self.mean, self.std = schedule, mean, std

    def __call__(self, z_t, t):
        alpha, sigma = (expand(value, z_t) for value in self.schedule.alpha_sigma(t, dtype=z_t.dtype))
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        x = self.mean + gain * (z_t - alpha * self.mean)
        return Prediction(x, (z_t - alpha * x) / sigma)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


COND = Conditioning({"mean": torch.tensor([[0.7], [-2.0], [1.5]], dtype=torch.float64)})
NULL = Conditioning({"mean": torch.tensor([[0.1]], dtype=torch.float64)})


class Gaussian(Denoiser):
    """Knows the mean of every clip's distribution from its conditioning."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, z_t, t, conditioning, guidance_scale=None):
        assert guidance_scale is None
        return GaussianTeacher(self.schedule, mean=conditioning.tensors["mean"])(z_t, t)

    @property
    def network(self):
        return self

    def example_inputs(self, batch_size):
        raise AssertionError("nobody plans with a Gaussian")

    def save(self, folder):
        raise AssertionError("a Gaussian has no folder")
