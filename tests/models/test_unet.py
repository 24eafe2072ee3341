"""Schedules that a network cannot have been trained on, or with which its output tells nothing."""

import pytest
import torch
from tiny_model import LATENT_SHAPE

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.unet import UNetDenoiser

STATES = Conditioning({"states": torch.zeros(1, 2, 16)}, {"states": torch.ones(1, 2, dtype=torch.bool)})


@pytest.fixture(scope="module")
def unet(teacher_folder):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(teacher_folder / "unet", low_cpu_mem_usage=False)


def denoiser_of(unet, prediction_type, **table):
    from diffusers import DDIMScheduler

    settings = {"num_train_timesteps": 64, "beta_schedule": "scaled_linear", "beta_start": 0.0085, "beta_end": 0.2}
    return UNetDenoiser(unet, DDIMScheduler(**settings | table, prediction_type=prediction_type))


ZERO_TERMINAL = [{"rescale_betas_zero_snr": True}, {"num_train_timesteps": 2, "trained_betas": [0.5, 1.0]}]


@pytest.mark.parametrize("table", ZERO_TERMINAL, ids=["rescaled", "trained"])
def test_noise_alone_tells_no_sound(unet, table):
    with pytest.raises(UserError, match=r"prediction_type is epsilon, .* leaves no signal at t = 1 .*; use v_pred"):
        denoiser_of(unet, "epsilon", **table)


@torch.no_grad()
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
@pytest.mark.parametrize("table", [*ZERO_TERMINAL, {}], ids=["rescaled", "trained", "usual"])
def test_the_others_have_a_value_there(unet, prediction_type, table):
    """z_1 is the noise itself, whatever sound is predicted."""
    z = torch.randn(1, *LATENT_SHAPE, generator=torch.Generator().manual_seed(0))
    x, eps = denoiser_of(unet, prediction_type, **table)(z, torch.ones(1), STATES)
    assert x.isfinite().all()
    if table:
        assert torch.equal(eps, z)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize(
    "table",
    [
        {"beta_start": 0.0},  # without noise at the first timestep
        {"beta_schedule": "linear", "beta_end": 1.5},
        {"num_train_timesteps": 3, "trained_betas": [0.1, 0.0, 0.1]},
        {"num_train_timesteps": 3, "trained_betas": [0.1, float("nan"), 0.1]},
        {"num_train_timesteps": 3, "trained_betas": [0.1, 0.1]},
    ],
    ids=["no noise", "beyond 1", "flat", "no number", "too short"],
)
def test_a_table_of_no_diffusion_is_refused(unet, prediction_type, table):
    with pytest.raises(
        UserError, match=r"the scheduler's table is not that of a diffusion process, .*; correct its betas"
    ):
        denoiser_of(unet, prediction_type, **table)


def test_another_prediction_is_refused(unet):
    with pytest.raises(UserError, match=r'prediction_type of the scheduler is "flow", but must be one of v_pre'):
        denoiser_of(unet, "flow")
