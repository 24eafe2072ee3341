"""What a small device does in place of a large one: smaller batches, coarser numbers."""

import functools

import pytest
import torch
from ladder import data_of, draw_in_halves, module_of, trainer_of
from tolerances import FLOAT32

from bsa_lightning.distillation.guidance_modes import Baked, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import load_denoiser


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def ladder(run, teacher_folder, latents_folder, *, batch_size=4, change=lambda module: None, settings=None, **trainer):
    """Under plain gradient descent, so that rounding stays rounding: Adam makes steps of it."""
    optimizer = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    module = module_of(
        teacher_folder, **{"plan": Plan(8, 2, 2), "ema_decay": 0.5, "optimizer": optimizer} | (settings or {})
    )
    change(module)
    trainer_of(run, **trainer).fit(module, data_of(latents_folder, batch_size=batch_size))
    return module


@pytest.mark.parametrize("guidance", [Baked(2.0), Outside(2.0)], ids=lambda guidance: guidance.name)
def test_two_batches_an_update_are_one_of_twice_the_size(guidance, teacher_folder, latents_folder, tmp_path):
    def draw_as_two(module):
        draw_in_halves(module, lambda half: {"micro_batch": half})

    settings = {"guidance": guidance}
    start = weights(load_denoiser(teacher_folder))
    once = ladder(tmp_path / "1", teacher_folder, latents_folder, change=draw_as_two, settings=settings)
    twice = ladder(
        tmp_path / "2", teacher_folder, latents_folder, batch_size=2, accumulate_grad_batches=2, settings=settings
    )
    assert once.global_step == twice.global_step == 4
    for part in ("student", "teacher", "finished_student"):
        torch.testing.assert_close(weights(getattr(once, part)), weights(getattr(twice, part)), **FLOAT32)
    assert float((weights(once.student) - start).abs().max()) > 100 * FLOAT32["atol"]


def test_half_precision_ends_near_full_precision(teacher_folder, latents_folder, tmp_path):
    """A bfloat16 has eight bits: an update is off by a part in a hundred, and weights are kept in full."""
    start = weights(load_denoiser(teacher_folder))
    full = ladder(tmp_path / "32", teacher_folder, latents_folder)
    half = ladder(tmp_path / "16", teacher_folder, latents_folder, precision="bf16-mixed")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    moved, off = (weights(full.student) - start).norm(), (weights(half.student) - weights(full.student)).norm()
    assert 0 < off < 0.05 * moved
