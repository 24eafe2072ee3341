import math

import pytest
import torch
from tolerances import IDENTITY

from bsa_lightning.diffusion.schedule import CosineSchedule, TableSchedule, scaled_linear, trailing_grid

TABLE = TableSchedule(scaled_linear(beta_start=0.00085, beta_end=0.012, num_timesteps=1000))


@pytest.mark.parametrize("schedule", [TABLE, CosineSchedule()], ids=["table", "cosine"])
def test_is_variance_preserving_monotone_and_clean_at_zero(schedule):
    alpha, sigma = schedule.alpha_sigma(torch.linspace(0, 1, 101), dtype=torch.float64)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), **IDENTITY)
    assert (alpha.diff() < 0).all()
    assert (alpha[0], sigma[0]) == (1, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_positions_of_the_table(dtype):
    assert TABLE.position(torch.arange(1001, dtype=torch.float64).div(1000).to(dtype)).tolist() == list(range(1001))
    assert TABLE.position(torch.tensor([0.0014, 0.0016, 0.9996], dtype=dtype)).tolist() == [1, 2, 1000]


def test_a_time_is_multiplied_in_float64_whatever_it_is_held_in():
    assert TABLE.position(torch.tensor(0.9765625, dtype=torch.bfloat16)) == 977  # 976.56, which bfloat16 has as 976


@pytest.mark.parametrize("schedule", [TABLE, CosineSchedule()], ids=["table", "cosine"])
@pytest.mark.parametrize("held", [torch.float32, torch.float64])
def test_scales_come_in_float32_or_as_asked_and_ratios_and_times_in_float64(schedule, held):
    t = torch.tensor([0.25, 0.75], dtype=held)
    assert [scale.dtype for scale in schedule.alpha_sigma(t)] == [torch.float32] * 2
    assert [scale.dtype for scale in schedule.alpha_sigma(t, dtype=torch.bfloat16)] == [torch.bfloat16] * 2
    assert schedule.snr(t).dtype == schedule.trained_times(t).dtype == torch.float64
    assert torch.equal(schedule.snr(t), schedule.snr(t.double()))


def test_tango_measured_snr():
    """Measured on Tango's own numbers: SNR(999) = 0.004682, SNR(0) = 1175.4."""
    snr = TABLE.snr(torch.tensor([1.0, 0.001], dtype=torch.float64))
    torch.testing.assert_close(snr, torch.tensor([0.004682, 1175.4], dtype=torch.float64), rtol=1e-3, atol=0)


def test_cosine_has_no_signal_at_the_end():
    assert CosineSchedule().snr(torch.tensor(1.0)) == 0


@pytest.mark.parametrize("num_steps", [1, 3, 25, 64])
def test_a_grid_is_a_subset_of_the_grid_of_twice_the_steps(num_steps):
    fine = trailing_grid(2 * num_steps)
    assert torch.equal(trailing_grid(num_steps), fine[::2])
    assert (fine[0], fine[-1], len(fine)) == (1, 0, 2 * num_steps + 1)


@pytest.mark.parametrize("schedule", [TABLE, CosineSchedule()], ids=["table", "cosine"])
def test_trained_times_are_never_clean(schedule):
    t = schedule.trained_times(torch.tensor([0.0, 0.5, math.nextafter(1, 0)], dtype=torch.float64))
    assert (t > 0).all()
    assert (t <= 1).all()


@pytest.mark.parametrize(("num_steps", "exact"), [(25, True), (8, True), (16, False), (64, False)])
def test_exact_grid_is_a_whole_number_of_timesteps(num_steps, exact):
    assert TABLE.has_exact_grid(num_steps) is exact


def test_trained_times_are_all_alike_likely():
    uniform = torch.tensor([0.0, 0.0009, 0.001, 0.5004, 0.9999], dtype=torch.float64)
    assert TABLE.trained_times(uniform).tolist() == [0.001, 0.001, 0.002, 0.501, 1.0]
    assert CosineSchedule().trained_times(uniform).tolist() == [1 - u for u in uniform.tolist()]


def test_continuous_time_has_every_grid():
    assert CosineSchedule().has_exact_grid(7)
