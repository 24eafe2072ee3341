import pytest
import torch
from gaussian import FLOWS, GaussianTeacher, noise
from tolerances import FLOAT32

from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.diffusion.schedule import CosineSchedule, TableSchedule, scaled_linear
from bsa_lightning.generation.samplers import DDIM, DPMSolver, Renoising

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


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_new_noise_is_that_of_the_time_and_of_nothing_else(schedule):
    """With a clean latent of 3 in every step, z_s = 3 alpha_s + sigma_s times noise that no other step has had."""
    seen, start = [], noise(20_000, 1)

    def three(z, t):
        alpha, sigma = schedule.alpha_sigma(t, dtype=torch.float64)
        seen.append((z - 3 * alpha[:, None]) / sigma[:, None])
        return Prediction(torch.full_like(z, 3.0), z)

    assert (Renoising()(three, schedule, start, 4) == 3).all()
    drawn = torch.cat([start, *seen[1:]], dim=1).double()
    assert drawn.shape == (20_000, 4)
    torch.testing.assert_close(drawn.T.cov(), torch.eye(4).double(), rtol=0, atol=0.04)  # 5.7 deviations of the least
    assert drawn.mean(0).abs().max() < 0.03


def test_new_noise_does_not_depend_on_the_batch_and_one_step_has_none():
    start = noise(5, 3).float()
    together = Renoising()(curved, TABLE, start, 3)
    assert torch.equal(together, torch.cat([Renoising()(curved, TABLE, start[i : i + 1], 3) for i in range(5)]))
    assert torch.equal(together, Renoising()(curved, TABLE, start, 3))
    assert not torch.allclose(together, DDIM()(curved, TABLE, start, 3))
    assert torch.equal(Renoising()(curved, TABLE, start, 1), curved(start, torch.ones(5, dtype=torch.float64)).x)


@pytest.mark.parametrize("schedule", FLOWS.values(), ids=FLOWS)
def test_an_ideal_consistency_model_keeps_the_distribution_of_the_data(schedule):
    """Of a normal distribution, whose probability flow to t = 0 keeps quantiles."""

    def ideal(z, t):
        alpha, sigma = (values[:, None] for values in schedule.alpha_sigma(t, dtype=torch.float64))
        return Prediction(0.7 + 1.6 * (z - alpha * 0.7) / (alpha**2 * 1.6**2 + sigma**2).sqrt(), z)

    found = Renoising()(ideal, schedule, noise(20_000, 1), 4)
    assert float(found.mean()) == pytest.approx(0.7, abs=0.06)
    assert float(found.std()) == pytest.approx(1.6, abs=0.05)


@pytest.mark.parametrize("sampler", [DDIM(), DPMSolver(), Renoising()], ids=lambda sampler: sampler.name)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_one_evaluation_a_step_at_the_times_of_the_trailing_grid(sampler, schedule):
    times = []

    def denoise(z, t):
        times.append(t.tolist())
        assert t.dtype == torch.float64
        return curved(z, t)

    found = sampler(denoise, schedule, noise(2, 3).float(), 5)
    assert found.isfinite().all()
    assert (found.shape, found.dtype) == ((2, 3), torch.float32)
    assert times == [[t, t] for t in (1.0, 0.8, 0.6, 0.4, 0.2)]


def test_equal_samplers_are_one():
    assert DDIM() == DDIM() != DPMSolver()
    assert len({DDIM(), DDIM(), DPMSolver(), DPMSolver(), Renoising(), Renoising()}) == 3
    assert len({sampler.fingerprint for sampler in (DDIM(), DPMSolver(), Renoising())}) == 3
