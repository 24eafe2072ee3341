import pytest
import torch
from gaussian import noise
from tolerances import IDENTITY

from bsa_lightning.diffusion.ddim import ddim_step
from bsa_lightning.diffusion.guidance import guide
from bsa_lightning.diffusion.process import Eps, Prediction, V, Velocity, X, add_noise, expand

ANGLE = torch.tensor([0.1, 0.8, 1.5], dtype=torch.float64)
ALPHA, SIGMA = ANGLE.cos(), ANGLE.sin()
FLOW = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)


@pytest.mark.parametrize(
    ("parametrization", "alpha", "sigma"),
    [
        (Eps(), ALPHA, SIGMA),
        (V(), ALPHA, SIGMA),
        (X(), ALPHA, SIGMA),
        (Velocity(), 1 - FLOW, FLOW),
        (Eps(), 1 - FLOW, FLOW),
    ],
    ids=["eps", "v", "x", "u", "eps of a flow"],
)
def test_output_and_prediction_are_inverse(parametrization, alpha, sigma):
    x, eps = noise(3, 2, 4), noise(3, 2, 4, seed=1)
    z_t = add_noise(x=x, eps=eps, alpha=alpha, sigma=sigma)
    output = parametrization.output(x=x, eps=eps, alpha=alpha, sigma=sigma)
    prediction = parametrization.prediction(output=output, z_t=z_t, alpha=alpha, sigma=sigma)
    torch.testing.assert_close(prediction.x, x, **IDENTITY)
    torch.testing.assert_close(prediction.eps, eps, **IDENTITY)


def test_ddim_with_the_truth_stays_on_the_path():
    x, eps = noise(3, 2), noise(3, 2, seed=1)
    z_s = ddim_step(prediction=Prediction(x, eps), alpha_s=ALPHA.flip(0), sigma_s=SIGMA.flip(0))
    torch.testing.assert_close(z_s, add_noise(x=x, eps=eps, alpha=ALPHA.flip(0), sigma=SIGMA.flip(0)), **IDENTITY)


def test_expand_leaves_scalars_and_reshapes_batches():
    assert expand(torch.tensor(1.0), torch.zeros(3, 2, 4)).shape == ()
    assert expand(ALPHA, torch.zeros(3, 2, 4)).shape == (3, 1, 1)


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1.0), (1.0, 3.0), (3.0, 7.0)])
def test_guidance_convention(scale, expected):
    cond, uncond = (Prediction(torch.tensor(value), -torch.tensor(value)) for value in (3.0, 1.0))
    guided = guide(cond=cond, uncond=uncond, scale=scale)
    assert (guided.x, guided.eps) == (expected, -expected)
