"""The mathematics and the random numbers, on the device as on the CPU."""

import pytest
import torch
from gaussian import FLOWS, GaussianTeacher, noise
from no_float64 import NoFloat64
from tolerances import FLOAT32

from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.diffusion.losses import denoising_loss, distillation_loss
from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.diffusion.schedule import CosineSchedule, TableSchedule, scaled_linear
from bsa_lightning.diffusion.weighting import BSA
from bsa_lightning.distillation.draws import draw
from bsa_lightning.generation.samplers import DDIM, DPMSolver
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.predictor import predictor

SCHEDULES = {
    "table": TableSchedule(scaled_linear(beta_start=0.00085, beta_end=0.012, num_timesteps=1000)),
    "cosine": CosineSchedule(),
    "flow": FLOWS["flow"],
}
schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
UNIFORM = torch.linspace(0, 0.999, 6, dtype=torch.float64)
CLEAN, NOISE = noise(6, 3, 2, seed=1).float(), noise(6, 3, 2, seed=2).float()


def test_draws_are_those_of_the_cpu(device):
    settings = {"seed": 1, "step": 2, "micro_batch": 3, "rank": 4, "caption_dropout": 0.5}
    here, there = (draw(latents=torch.zeros(8, 3, 2, device=d), **settings) for d in ("cpu", device))
    assert {name: part.device.type for name, part in there._asdict().items() if name != "seed"} == {
        "uniform": "cpu", "eps": device.type, "posterior_noise": device.type, "keep_caption": "cpu", "guidance": "cpu"
    }  # fmt: skip
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(here[:-1], there[:-1], strict=True))


@schedules
def test_the_loss_of_algorithm_1_is_that_of_the_cpu(schedule, device):
    teacher, student = GaussianTeacher(schedule), GaussianTeacher(schedule, mean=-0.4, std=0.9)

    def on(place):
        return distillation_loss(
            x=CLEAN.to(place), eps=NOISE.to(place), uniform=UNIFORM, num_steps=10, schedule=schedule, teacher=teacher,
            student=student, weighting=BSA(),
        )  # fmt: skip

    found, expected = on(device), on("cpu")
    torch.testing.assert_close(found.error.cpu(), expected.error, **FLOAT32)
    torch.testing.assert_close(found.loss().cpu(), expected.loss(), **FLOAT32)
    assert torch.equal(found.weight, expected.weight)


@schedules
def test_the_loss_of_equation_1_is_that_of_the_cpu(schedule, device):
    def on(place):
        return denoising_loss(
            x=CLEAN.to(place), eps=NOISE.to(place), uniform=UNIFORM, schedule=schedule,
            network=GaussianTeacher(schedule), weighting=BSA(),
        )  # fmt: skip

    torch.testing.assert_close(on(device).loss().cpu(), on("cpu").loss(), **FLOAT32)


@pytest.mark.parametrize("sampler", [DDIM(), DPMSolver()], ids=lambda sampler: sampler.name)
@schedules
def test_sampling_is_that_of_the_cpu(schedule, sampler, device):
    ends = [sampler(GaussianTeacher(schedule), schedule, NOISE.to(place), 7).cpu() for place in (device, "cpu")]
    torch.testing.assert_close(*ends, **FLOAT32)


def test_conditioning_is_chosen_and_repeated_as_on_the_cpu(device):
    own = Conditioning({"states": torch.randn(4, 5, 3)}, {"states": torch.ones(4, 5, dtype=torch.bool)})
    null = own[:1]
    keep = torch.tensor([True, False, True, False])
    for change in (lambda c, n: c.where(keep, n.repeat(4)), lambda c, _: c.repeat(3)):
        there = change(own.to(device), null.to(device))
        assert there.tensors["states"].device.type == device.type
        assert torch.equal(there.tensors["states"].cpu(), change(own, null).tensors["states"])


@pytest.mark.parametrize("scale", [1.0, 2.5, torch.tensor([1.0, 2.0, 4.0])], ids=["one", "guided", "of each clip"])
def test_no_float64_reaches_the_device(scale, device, teacher_folder):
    """MPS has none: times, schedules, weights and draws stay on the CPU."""
    from bsa_lightning.models.loading import load_denoiser

    denoiser = load_denoiser(teacher_folder).to(device)
    z_t, conditioning = denoiser.example_inputs(3)
    z_t, conditioning = z_t.to(device), conditioning.to(device)
    denoise = predictor(denoiser, conditioning, null=conditioning[:1], guidance_scale=scale)
    with NoFloat64():
        draws = draw(seed=0, step=0, micro_batch=0, rank=0, latents=z_t, caption_dropout=0.5)
        errors = distillation_loss(
            x=z_t, eps=draws.eps, uniform=draws.uniform, num_steps=4, schedule=denoiser.schedule, teacher=denoise,
            student=predictor(denoiser, conditioning.where(draws.keep_caption, conditioning[:1].repeat(3))),
            weighting=BSA(),
        )  # fmt: skip
        errors.loss().backward()
        sample(denoise=denoise, schedule=denoiser.schedule, noise=draws.eps, num_steps=2)


def test_a_prediction_on_the_device_takes_times_on_the_cpu(device):
    """Which ``expand`` brings together, whatever the network does with the times."""
    seen = []

    def denoise(z_t, t):
        seen.append(t.device.type)
        return Prediction(0.5 * z_t, z_t)

    sample(denoise=denoise, schedule=CosineSchedule(), noise=NOISE.to(device), num_steps=3)
    assert seen == ["cpu"] * 3
