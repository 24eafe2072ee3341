import pytest
import torch
from tolerances import FLOAT32

from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.diffusion.process import V
from bsa_lightning.diffusion.schedule import CosineSchedule
from bsa_lightning.models.stable_audio.cosine_scheduler import CosineDDIMScheduler


@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_the_scheduler_walks_as_our_sampler_does(num_steps):
    """With the perfect denoiser of data N(0, 1/4), whose v is linear in z_t."""
    schedule, noise = CosineSchedule(), torch.randn(3, 4, 16)

    def velocity(z_t, t):
        alpha, sigma = schedule.alpha_sigma(t)
        x = 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * z_t
        return V().output(x=x, eps=(z_t - alpha * x) / sigma, alpha=alpha, sigma=sigma)

    def denoise(z_t, t):
        alpha, sigma = schedule.alpha_sigma(t)
        return V().prediction(output=velocity(z_t, t[0]), z_t=z_t, alpha=alpha, sigma=sigma)

    ours = sample(denoise=denoise, schedule=schedule, noise=noise, num_steps=num_steps)
    scheduler = CosineDDIMScheduler()
    scheduler.set_timesteps(num_steps)
    z_t = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        z_t = scheduler.step(velocity(scheduler.scale_model_input(z_t, t), t), t, z_t).prev_sample
    torch.testing.assert_close(z_t, ours, **FLOAT32)


def test_the_scheduler_starts_from_noise_alone_and_ends_on_x():
    scheduler, noise, v = CosineDDIMScheduler(), torch.randn(1, 4), torch.randn(1, 4)
    scheduler.set_timesteps(1)
    assert torch.equal(scheduler.step(v, scheduler.timesteps[0], noise, return_dict=False)[0], -v)
    with pytest.raises(ValueError, match="num_inference_steps is 0"):
        scheduler.set_timesteps(0)
