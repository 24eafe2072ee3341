import pytest
import torch
from gaussian import FLOWS, GaussianTeacher, noise
from tolerances import FLOAT32

from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.diffusion.schedule import CosineSchedule, TableSchedule, scaled_linear
from bsa_lightning.generation.samplers import DDIM, DPMSolver

BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
TABLE = TableSchedule(scaled_linear(**BETAS, num_timesteps=1000))
SCHEDULES = {"table": TABLE, "cosine": CosineSchedule(), "flow": FLOWS["flow"]}


def curved(z, t):
    """A denoiser that is linear in nothing."""
    return Prediction(torch.tanh(1.3 * z - 0.4) * (1 - 0.6 * t[:, None].float()), z)


def transported(schedule, z_1, *, mean=0.7, std=1.6):
    """Where the probability flow of a normal distribution carries z_1: to the same quantile."""
    alpha, sigma = schedule.alpha_sigma(torch.tensor(1.0), dtype=torch.float64)
    return mean + std * (z_1 - alpha * mean) / (alpha**2 * std**2 + sigma**2).sqrt()


@pytest.mark.parametrize("num_steps", [1, 2, 4, 20])
def test_dpm_solver_is_diffusers_own_loop(num_steps):
    from diffusers import DPMSolverMultistepScheduler

    theirs = DPMSolverMultistepScheduler(
        **BETAS, beta_schedule="scaled_linear", timestep_spacing="trailing", prediction_type="sample"
    )
    theirs.set_timesteps(num_steps)
    start = noise(3, 5).float()
    expected = start
    for timestep in theirs.timesteps:
        x = curved(expected, (timestep + 1).expand(3) / 1000).x
        expected = theirs.step(x, timestep, expected, return_dict=False)[0]
    torch.testing.assert_close(DPMSolver()(curved, TABLE, start, num_steps), expected, **FLOAT32)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_many_steps_lead_where_ddim_leads_and_faster(schedule):
    teacher, start = GaussianTeacher(schedule), noise(1, 64).float()
    end = transported(schedule, start)
    ddim, solver = (
        {n: float((sampler(teacher, schedule, start, n) - end).abs().max()) for n in (10, 20, 500)}
        for sampler in (DDIM(), DPMSolver())
    )
    assert ddim[500] < 2e-2
    assert solver[500] < ddim[500] / 8
    # Twice the steps halve an error of first order and quarter one of second order, in the limit.
    assert ddim[10] / ddim[20] == pytest.approx(2, rel=0.1)
    assert solver[10] / solver[20] > 2.8


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 2])
def test_steps_of_first_order_are_ddim(schedule, num_steps):
    start, teacher = noise(2, 7).float(), GaussianTeacher(schedule)
    found, expected = (sampler(teacher, schedule, start, num_steps) for sampler in (DPMSolver(), DDIM()))
    tolerance = FLOAT32 if num_steps == 1 or schedule is TABLE else {"rtol": 0.0, "atol": 2.0**-12}
    torch.testing.assert_close(found, expected, **tolerance)


@pytest.mark.parametrize("sampler", [DDIM(), DPMSolver()], ids=lambda sampler: sampler.name)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_one_evaluation_a_step_at_the_times_of_the_trailing_grid(sampler, schedule):
    times, steps = [], []

    def denoise(z, t):
        times.append(t.tolist())
        assert t.dtype == torch.float64
        return curved(z, t)

    found = sampler(denoise, schedule, noise(2, 3).float(), 5, steps.append)
    assert found.isfinite().all()
    assert (found.shape, found.dtype) == ((2, 3), torch.float32)
    assert times == [[t, t] for t in (1.0, 0.8, 0.6, 0.4, 0.2)]
    assert steps == [1, 2, 3, 4, 5]


def test_equal_samplers_are_one():
    assert DDIM() == DDIM() != DPMSolver()
    assert len({DDIM(), DDIM(), DPMSolver(), DPMSolver()}) == 2
    assert DDIM().fingerprint != DPMSolver().fingerprint
