import pytest
import torch
from gaussian import GaussianTeacher
from tolerances import SAMPLES

from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.diffusion.process import Eps, V
from bsa_lightning.diffusion.schedule import TableSchedule, scaled_linear

BETAS = {"beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize(("num_timesteps", "num_steps"), [(1000, 25), (1000, 8), (1024, 64), (1024, 1)])
@pytest.mark.parametrize(("name", "space"), [("v_prediction", V()), ("epsilon", Eps())], ids=["v", "eps"])
def test_equals_diffusers_ddim_step_by_step(num_timesteps, num_steps, name, space):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=num_timesteps,
        beta_schedule="scaled_linear",
        **BETAS,
        prediction_type=name,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )
    scheduler.set_timesteps(num_steps)
    schedule = TableSchedule(scaled_linear(**BETAS, num_timesteps=num_timesteps))
    teacher = GaussianTeacher(schedule)
    path = []

    def denoise(z_t, t):
        path.append((schedule.position(t[0]) - 1, z_t))
        return teacher(z_t, t)

    noise = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    ours = sample(denoise=denoise, schedule=schedule, noise=noise, num_steps=num_steps)
    z = noise
    for timestep, (our_timestep, our_z) in zip(scheduler.timesteps, path, strict=True):
        assert timestep == our_timestep
        torch.testing.assert_close(z, our_z, **SAMPLES)
        t = (timestep + 1).double().expand(2) / num_timesteps
        alpha, sigma = schedule.alpha_sigma(t)
        prediction = teacher(z, t)
        z = scheduler.step(space.output(**prediction._asdict(), alpha=alpha, sigma=sigma), timestep, z).prev_sample
    torch.testing.assert_close(ours, z, **SAMPLES)


def test_no_gradient_is_kept_of_a_sample():
    schedule = TableSchedule(scaled_linear(**BETAS, num_timesteps=1000))
    teacher = GaussianTeacher(schedule, mean=torch.tensor(0.7, requires_grad=True))
    assert not sample(denoise=teacher, schedule=schedule, noise=torch.zeros(1, 1), num_steps=2).requires_grad
