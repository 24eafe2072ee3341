"""The scheduler of flow-matching networks in diffusers' layout: what its configuration must say, checked on reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.provenance import is_number

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler

_PATH = "scheduler/scheduler_config.json"
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
"""The class of diffusers that steps through a rectified flow."""
_PREDICTIONS = (None, "flow_prediction")
"""The prediction types of a velocity; the scheduler's own configuration has no such entry."""
_OFF = (
    "use_dynamic_shifting",
    "stochastic_sampling",
    "invert_sigmas",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
)
"""Settings with which diffusers would step on other noise levels than the warped trailing grid, or add noise."""


def flow_shift(model: ModelFolder, *, num_train_timesteps: int, shift: float | None = None) -> float:
    """The shift of the scheduler of a model folder, after a check that it steps on the plain grid of a flow.

    Args:
        model: the model folder.
        num_train_timesteps: what the network is told is this times sigma.
        shift: the only shift that the family supports, such as 1 for none; ``None`` supports each above 0.

    Raises:
        UserError: if the scheduler cannot be read, is of another class or for another kind of prediction, or one of
            its settings changes the grid.
    """
    config, path = model.json(_PATH), model.path / _PATH
    model.verify("scheduler")
    if (kind := config.get("_class_name")) != FLOW_SCHEDULER:
        raise UserError(f'_class_name is "{kind}" in {path}, but must be {FLOW_SCHEDULER}; name a flow model')
    if (predicted := config.get("prediction_type")) not in _PREDICTIONS:
        raise UserError(f'prediction_type is "{predicted}" in {path}, but must be flow_prediction; name a flow model')
    if (found := config.get("num_train_timesteps", 1000)) != num_train_timesteps:
        raise UserError(
            f"num_train_timesteps is {found} in {path}, but this network is told {num_train_timesteps} times the noise"
            f" level; set it to {num_train_timesteps}"
        )
    for name in _OFF:
        if config.get(name):
            raise UserError(
                f"{name} is {config[name]} in {path}, but students are trained on the deterministic grid without it;"
                " name a model that is sampled so, or remove the entry"
            )
    found = config.get("shift", 1.0)
    if not is_number(found, at_least=0) or found == 0:
        raise UserError(f"shift is {found} in {path}, but must be a number above 0; correct it")
    if shift is not None and found != shift:
        raise UserError(
            f"shift is {found} in {path}, but this family's networks are sampled with {shift:g}; correct it"
        )
    return float(found)


def flow_scheduler(*, num_train_timesteps: int, shift: float = 1.0) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler to save with a network; to step on the trailing grid, diffusers must be given its noise levels.

    Args:
        num_train_timesteps: what the network is told is this times sigma.
        shift: the shift of the noise levels, above 0; 1 is none.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=num_train_timesteps, shift=shift)
