import pytest
import torch
from tolerances import IDENTITY

from bsa_lightning.diffusion.flow import FlowSchedule, LogSNR
from bsa_lightning.models.stable_audio_3.schedule import StableAudio3Schedule


@pytest.mark.parametrize("num_steps", [1, 2, 4, 7, 25, 50, 100, 200])
def test_noise_levels_are_the_pipelines_to_the_last_bit(num_steps):
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3 import logsnr_sigma_schedule

    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1)
    scheduler.set_timesteps(sigmas=logsnr_sigma_schedule(num_steps, -6.2, 2.0))
    schedule = StableAudio3Schedule()
    grid = schedule.grid(num_steps)
    assert torch.equal(schedule.alpha_sigma(grid)[1], scheduler.sigmas)
    # The time of one clip alone, as the network is told it.
    assert torch.equal(torch.stack([schedule.alpha_sigma(t.expand(1))[1][0] for t in grid]), scheduler.sigmas)


@pytest.mark.parametrize("num_steps", [1, 8, 100])
def test_the_grid_is_the_trailing_one_but_for_rounding(num_steps):
    grid = StableAudio3Schedule().grid(num_steps)
    exact = torch.arange(num_steps, -1, -1, dtype=torch.float64) / num_steps
    assert (grid[0], grid[-1]) == (1, 0)
    assert (grid - exact).abs().max() < 2e-6
    assert (StableAudio3Schedule().grid(2 * num_steps)[::2] - grid).abs().max() < 2e-6


def test_between_its_grids_it_is_the_flow_uniform_in_log_snr():
    t = torch.rand(100, dtype=torch.float64)
    for ours, theirs in zip(
        StableAudio3Schedule().alpha_sigma(t, dtype=torch.float64),
        FlowSchedule(LogSNR()).alpha_sigma(t, dtype=torch.float64),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **IDENTITY)
