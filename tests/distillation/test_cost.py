"""Costs from shapes alone: counts that are known in closed form or were measured elsewhere."""

import copy
import functools
import gc

import pytest
import torch
from ladder import module_of

from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation.cost import PeakMemory, cost, sampling_flops
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.distillation.methods import SegmentedConsistency
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import load_denoiser, without_weights
from bsa_lightning.training.latent_module import NetworkOptions


@pytest.fixture(scope="module")
def tango():
    """Tango's network; no folder of that name exists."""
    with without_weights():
        return load_denoiser("models/tango2")


def planned(folder, *, batch_size=2, precision="32-true", accumulate=1, **settings):
    with without_weights():
        module = module_of(folder, **{"plan": Plan(8, 2, 1)} | settings)
    return cost(module, batch_size=batch_size, precision=precision, accumulate=accumulate)


def test_tango_has_its_published_size_and_measured_flops(tango):
    """803.2 GFLOP an evaluation at 64 tokens, measured on the meta device with unfused attention."""
    assert sum(parameter.numel() for parameter in tango.parameters()) == 865_933_768
    assert sampling_flops(tango) / 1e9 == pytest.approx(803.2, abs=0.1)


def test_parts_of_memory_are_those_of_their_numbers(teacher_folder):
    parameters = sum(parameter.numel() for parameter in load_denoiser(teacher_folder).parameters())
    plain = planned(teacher_folder)
    assert plain.parameters == parameters
    assert plain.teacher == plain.student == plain.gradients == 4 * parameters
    assert plain.average == 0
    assert plain.optimizer == pytest.approx(8 * parameters, rel=1e-3)
    sgd = functools.partial(torch.optim.SGD, lr=0.1)
    other = planned(teacher_folder, networks=NetworkOptions("bfloat16"), ema_decay=0.9, optimizer=sgd)
    assert other.teacher == 2 * parameters
    assert other.student == other.average == 4 * parameters
    assert other.optimizer == 0


@pytest.mark.parametrize(
    ("guidance", "evaluations"),
    [(Outside(2.0), 1), (Baked(2.0), 2), (Embedded(2.0), 2)],
    ids=["outside", "baked", "embedded"],
)
def test_flops_are_those_of_the_evaluations(teacher_folder, guidance, evaluations):
    with without_weights():
        one = sampling_flops(load_denoiser(teacher_folder))
    found = planned(teacher_folder, batch_size=3, accumulate=2, guidance=guidance)
    assert found.teacher_flops == 3 * 2 * 2 * evaluations * one
    assert found.student_flops == pytest.approx(3 * 2 * 3 * one, rel=0.05)  # backward costs about two forwards


def test_a_target_with_an_average_costs_one_guided_evaluation_and_one_of_the_student(teacher_folder):
    """Whatever the number of the teacher's steps in one of the student's."""
    with without_weights():
        one = sampling_flops(load_denoiser(teacher_folder))
    for plan in (Plan(8, 4, 1), Plan(8, 1, 1, factor=8)):
        found = planned(teacher_folder, plan=plan, method=SegmentedConsistency(), ema_decay=0.9)
        assert found.teacher_flops == 2 * (2 + 1) * one
    assert found.average == found.student


def test_activations_grow_with_clips_and_shrink_with_checkpointing(teacher_folder):
    few, many = (planned(teacher_folder, batch_size=size).activations for size in (16, 32))
    assert many == pytest.approx(2 * few, rel=0.3)
    assert (
        planned(teacher_folder, batch_size=32, networks=NetworkOptions(gradient_checkpointing=True)).activations
        < 0.8 * many
    )
    assert planned(teacher_folder, batch_size=32, precision="bf16-mixed").activations < many


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_activations_are_those_of_the_network_that_computes(teacher_folder, checkpointing):
    """And need no garbage collection, which would free them late and at chance."""
    networks = NetworkOptions(gradient_checkpointing=checkpointing)
    gc.disable()
    try:
        found = planned(teacher_folder, batch_size=8, networks=networks)
    finally:
        gc.enable()
    student = module_of(teacher_folder, plan=Plan(8, 2, 1), networks=networks).student
    (z_t, conditioning), memory = student.example_inputs(8), PeakMemory()
    with memory:
        student(z_t, torch.full((8,), 0.5), conditioning).x.square().mean().backward()
    assert found.activations == pytest.approx(memory.peak - found.gradients, rel=0.05)


def test_peak_memory_of_a_known_computation():
    memory, numbers = PeakMemory(), torch.randn(1000, requires_grad=True)
    with memory:
        kept = numbers.sin()  # 4000 bytes
        double = kept.double()  # 8000 more
        assert (memory.live, memory.peak) == (12_000, 12_000)
        del double
        assert memory.live == 4000
        kept.view(10, 100)
        assert (memory.live, memory.peak) == (4000, 12_000)


def test_nothing_of_the_folder_but_its_configuration_is_read(teacher_folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("weights were read")

    monkeypatch.setattr("safetensors.torch.load_file", refuse)
    monkeypatch.setattr("diffusers.UNet2DConditionModel.from_pretrained", refuse)
    assert planned(teacher_folder).parameters > 0


def test_a_copy_of_a_network_without_weights_keeps_its_mode(teacher_folder):
    """A copied mode crashes the interpreter when garbage is collected."""
    with without_weights():
        network = load_denoiser(teacher_folder)
        copied = copy.deepcopy(network)
    assert next(copied.parameters()).fake_mode is next(network.parameters()).fake_mode


def test_an_unknown_teacher_is_refused():
    with without_weights(), pytest.raises(UserError, match='model is "models/nowhere"'):
        load_denoiser("models/nowhere")
