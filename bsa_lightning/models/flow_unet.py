"""A UNet of diffusers that predicts the velocity of a rectified flow: the network of the built-in flow teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from bsa_lightning.diffusion.flow import FlowSchedule, Identity, Shift
from bsa_lightning.diffusion.process import Velocity
from bsa_lightning.models.flow_scheduler import FLOW_SCHEDULER, flow_scheduler, flow_shift
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.unet import UNetDenoiser

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler

_NUM_TIMESTEPS = 1000


def is_flow(model: ModelFolder) -> bool:
    """Whether the scheduler of a model folder is that of a rectified flow."""
    return model.json("scheduler/scheduler_config.json").get("_class_name") == FLOW_SCHEDULER


class FlowUNetDenoiser(UNetDenoiser):
    """A UNet with cross-attention to a sequence of text states, that predicts u = eps - x and is told 1000 sigma.

    Args:
        unet: the UNet.
        scheduler: the scheduler, whose ``shift`` warps the grid.
    """

    def use_scheduler(self, scheduler: FlowMatchEulerDiscreteScheduler) -> None:
        shift = scheduler.config.shift
        self.parametrization = Velocity()
        self.schedule = FlowSchedule(Identity() if shift == 1 else Shift(shift))
        self.parametrization.check_schedule(self.schedule)
        self.scheduler = scheduler

    @staticmethod
    def read_scheduler(model: ModelFolder) -> FlowMatchEulerDiscreteScheduler:
        shift = flow_shift(model, num_train_timesteps=_NUM_TIMESTEPS)
        return flow_scheduler(num_train_timesteps=_NUM_TIMESTEPS, shift=shift)

    def timesteps(self, t: Tensor) -> Tensor:
        _, sigma = self.schedule.alpha_sigma(t)
        return _NUM_TIMESTEPS * sigma
