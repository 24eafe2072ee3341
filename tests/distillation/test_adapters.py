"""LoRA students: what is shared, what is trained, and what rounds, checkpoints and the plan make of an adapter."""

import functools

import pytest
import torch
from ladder import StopAt, data_of, module_of, trainer_of
from tolerances import FLOAT32, IDENTITY, SAMPLES

from bsa_lightning import LoRA
from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation import adapters
from bsa_lightning.distillation.cost import cost
from bsa_lightning.distillation.guidance_modes import Baked, Embedded
from bsa_lightning.distillation.methods import SegmentedConsistency
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_denoiser, without_weights
from bsa_lightning.training.latent_module import NetworkOptions
from bsa_lightning.training.sharding import Sharded

RANK = 4
MODES = {
    "baked": {"guidance": Baked(2.0)},
    "embedded": {"guidance": Embedded(2.0)},
    "consistency": {"method": SegmentedConsistency()},
}


def lora_of(teacher_folder, **settings):
    return module_of(teacher_folder, **{"adapter": LoRA(RANK), "ema_decay": 0.5} | settings)


def predicted(denoiser):
    torch.manual_seed(0)
    z_t, zeros = denoiser.example_inputs(2)
    drawn = {name: torch.randn(tensor.shape) for name, tensor in zeros.tensors.items()}
    conditioning = Conditioning(drawn, zeros.masks)
    scale = torch.tensor([1.5, 3.0]) if denoiser.takes_guidance else None
    return denoiser(torch.randn(z_t.shape), torch.tensor([0.3, 0.8]), conditioning, scale)


def students(run):
    files = [path for path in (run / "rounds").rglob("*") if path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(teacher_folder, latents_folder, tmp_path_factory):
    """A ladder of two rounds of a mode, and what its networks were before the second; made when first asked for."""

    @functools.cache
    def run(mode):
        folder, seen = tmp_path_factory.mktemp(mode), {}
        module = lora_of(teacher_folder, **MODES[mode])
        promote = module.promote

        def watched(student):
            with torch.no_grad():
                seen["finished"] = predicted(module.finished_student)
                promote(student)
                seen["next"] = {name: predicted(getattr(module, name)) for name in ("student", "teacher")}
                seen["next"]["average"] = predicted(module.finished_student)
            seen["weights"] = {name: tensor.clone() for name, tensor in module.teacher.state_dict().items()}

        module.promote = watched
        trainer_of(folder).fit(module, data_of(latents_folder))
        return folder, seen, module

    return run


@pytest.mark.parametrize("mode", MODES)
def test_student_and_average_start_as_the_teacher_and_share_its_weights(teacher_folder, mode):
    module = lora_of(teacher_folder, **MODES[mode])
    teacher = predicted(module.teacher)
    for network in (module.student, module.finished_student):
        assert all(torch.equal(ours, its) for ours, its in zip(predicted(network), teacher, strict=True))
        shared = {parameter.data_ptr() for parameter in network.parameters()}
        assert {parameter.data_ptr() for parameter in module.teacher.parameters()} <= shared
    own = {name for name, _ in module.named_parameters()} - {
        name for name, _ in module.teacher.named_parameters("teacher")
    }
    assert all(".lora_" in name or ".cond_proj." in name for name in own)
    trained = sum(parameter.numel() for parameter in adapters.trained(module.student))
    assert 0 < trained < 0.3 * sum(parameter.numel() for parameter in module.teacher.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_the_adapter_and_new_layers_get_gradients(teacher_folder, checkpointing):
    module = lora_of(
        teacher_folder, guidance=Embedded(2.0), networks=NetworkOptions(gradient_checkpointing=checkpointing)
    )
    for parameter in adapters.trained(module.student):  # B = 0 would leave A without a gradient
        parameter.data.add_(0.01)
    predicted(module.student).x.square().sum().backward()
    got = {name for name, parameter in module.student.named_parameters() if parameter.grad is not None}
    assert got == {name for name, parameter in module.student.named_parameters() if parameter.requires_grad}
    assert {(name.rpartition(".lora_")[0] and "lora") or name for name in got} == {
        "lora",
        "unet.time_embedding.cond_proj.weight",
    }
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in adapters.trained(module.student))
    assert all(parameter.grad is None for parameter in module.teacher.parameters())


def test_the_same_seed_starts_the_same_adapter_whatever_was_drawn_before(teacher_folder):
    def first(seed, drawn):
        torch.manual_seed(drawn)
        return adapters.trained(lora_of(teacher_folder, seed=seed).student)[0]

    assert torch.equal(first(3, 1), first(3, 2))
    assert not torch.equal(first(3, 1), first(4, 1))


def test_the_adapters_of_each_round_start_differently(teacher_folder):
    module = lora_of(teacher_folder)
    first = [parameter.clone() for parameter in adapters.trained(module.student)]
    adapters.hand_on(module.adapter, module.student, teacher=module.teacher, seeds=(module.seed, 1))
    second = adapters.trained(module.student)
    assert {torch.equal(one, other) for one, other in zip(first, second, strict=True) if one.any()} == {False}


def test_shared_weights_are_named_by_all_their_names(teacher_folder):
    module = lora_of(teacher_folder)
    found = adapters.shared(module, module.teacher)
    for network in ("teacher", "student", "ema.average"):
        names = {f"{network}.{name}" for name, _ in module.get_submodule(network).named_parameters()}
        assert {name for name in found if name.startswith(f"{network}.")} == {n for n in names if ".lora_" not in n}


def test_a_restored_checkpoint_has_all_of_the_teacher_its_buffers_too(teacher_folder):
    module, read = lora_of(teacher_folder), load_denoiser(teacher_folder)
    for buffers, number in ((module.teacher, 1.0), (read, 2.0)):
        buffers.register_buffer("extra", torch.tensor([number]))
        next(buffers.parameters()).data.fill_(number)
    checkpoint = {"state_dict": {}}
    adapters.restore_shared(checkpoint, module, module.teacher, read)
    for name, tensor in read.state_dict().items():
        assert torch.equal(checkpoint["state_dict"][f"teacher.{name}"], tensor), name
    assert float(next(module.student.parameters()).flatten()[0]) == 2.0


@pytest.mark.parametrize("mode", MODES)
def test_a_round_is_merged_into_the_next_teacher_and_adapters_start_anew(finished, mode):
    """What the finished student predicts, the merged one predicts, up to rounding; and its folder is it, bit by bit."""
    run, seen, module = finished(mode)
    student = load_denoiser(run / "rounds" / "1-4steps")
    for ours, its in zip(predicted(student), seen["finished"], strict=True):
        torch.testing.assert_close(ours, its, **FLOAT32)
    if mode == "consistency":  # the first teacher stays, and the adapter goes on
        first = load_denoiser(module.teacher_name).state_dict()
        assert all(torch.equal(tensor, first[name]) for name, tensor in seen["weights"].items())
        assert all(torch.equal(seen["next"]["student"][0], seen["next"][name][0]) for name in ("student", "average"))
        torch.testing.assert_close(seen["next"]["student"], seen["finished"], rtol=0, atol=0)
    else:
        assert all(torch.equal(tensor, student.state_dict()[name]) for name, tensor in seen["weights"].items())
        assert all(torch.equal(prediction.x, predicted(student).x) for prediction in seen["next"].values())
    assert not torch.equal(seen["finished"].x, predicted(load_denoiser(module.teacher_name)).x)


def test_a_checkpoint_has_adapters_alone(finished):
    for mode in MODES:
        run, _, module = finished(mode)
        state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        trained = {name for name, parameter in module.student.named_parameters() if parameter.requires_grad}
        assert set(state) == {f"student.{name}" for name in trained} | {f"ema.average.{name}" for name in trained}


@pytest.mark.parametrize(
    ("mode", "step"),
    [
        ("embedded", 5),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("baked", 4), ("embedded", 2), ("consistency", 6))),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(finished, teacher_folder, latents_folder, tmp_path, mode, step):
    """In a round, at the boundary (4), and after it; all files of the students, those of the adapters too."""
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer_of(tmp_path, StopAt(step)).fit(lora_of(teacher_folder, **MODES[mode]), data_of(latents_folder))
    module = lora_of(teacher_folder, **MODES[mode])
    last = tmp_path / "checkpoints" / "last.ckpt"
    trainer_of(tmp_path).fit(module, data_of(latents_folder), ckpt_path=last, weights_only=True)
    assert students(tmp_path) == students(finished(mode)[0])


@pytest.mark.parametrize("mode", ["baked", "consistency"])
@pytest.mark.parametrize("reader", ["diffusers", "peft"])
def test_the_adapter_of_any_round_belongs_to_the_first_teacher(finished, mode, reader):
    """One adapter of the sum of the ranks, for as many rounds as were merged, opened as the card says."""
    run, _, module = finished(mode)
    for name, rounds in (("1-4steps", 1), ("2-2steps", 2 if mode == "baked" else 1)):
        folder, teacher = run / "rounds" / name, load_denoiser(module.teacher_name)
        if reader == "diffusers":
            teacher.unet.load_lora_adapter(
                str(folder / "adapter"), prefix="base_model.model", weight_name="adapter_model.safetensors"
            )
            (config,) = teacher.unet.peft_config.values()
            assert (config.r, config.lora_alpha) == (RANK * rounds, RANK * rounds)
        else:
            from peft import PeftModel

            teacher.unet = PeftModel.from_pretrained(teacher.unet, folder / "adapter").merge_and_unload()
        with torch.no_grad():
            torch.testing.assert_close(predicted(teacher).x, predicted(load_denoiser(folder)).x, **SAMPLES)


def test_an_average_of_adapters_is_that_of_its_factors(teacher_folder):
    module = lora_of(teacher_folder, ema_decay=0.75)
    before = [parameter.clone() for parameter in module.teacher.parameters()]
    names = [name for name, parameter in module.student.named_parameters() if parameter.requires_grad]
    for name in names:
        module.student.get_parameter(name).data.add_(1.0)
    start = {name: module.ema.average.get_parameter(name).clone() for name in names}
    module.ema.update(module.student)
    for name in names:
        torch.testing.assert_close(module.ema.average.get_parameter(name), start[name] + 0.25, **FLOAT32)
    assert all(torch.equal(one, other) for one, other in zip(before, module.teacher.parameters(), strict=True))


def test_the_plan_counts_what_a_run_holds(teacher_folder):
    module = lora_of(teacher_folder)
    trained = sum(parameter.numel() for parameter in adapters.trained(module.student))
    base = sum(parameter.numel() for parameter in module.teacher.parameters())
    with without_weights():
        planned = lora_of(teacher_folder)
    found = cost(planned, batch_size=2, precision="32-true", accumulate=1)
    assert found.parameters == trained
    assert found.teacher == 4 * base
    assert found.student == found.average == found.gradients == 4 * trained
    assert found.optimizer == pytest.approx(8 * trained, rel=1e-3)


def test_a_plan_with_checkpointing_under_autocast(teacher_folder):
    """Norms that are computed anew in the backward pass are of the type that they were of."""
    options = NetworkOptions(gradient_checkpointing=True)
    with without_weights():
        module = lora_of(teacher_folder, networks=options)
    assert cost(module, batch_size=2, precision="bf16-mixed", accumulate=1).activations > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank of the adapter is 0, but must be a whole number, at least 1"),
        ({"alpha": -1.0}, "alpha of the adapter is -1.0, but must be a finite number, above 0"),
        ({"target_modules": []}, "target_modules of the adapter is empty"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        LoRA(**settings)


def test_a_name_of_no_layer_is_refused_with_those_that_there_are(teacher_folder):
    with pytest.raises(UserError, match=r"ends in to_x; its layers end in conv, .*, net.2, .*, to_out.0, to_q, to_v"):
        lora_of(teacher_folder, adapter=LoRA(target_modules=["to_q", "to_x"]))
    module = lora_of(teacher_folder, adapter=LoRA(2, alpha=1.0, target_modules=["net.2", "conv1"]))
    names = {
        name.split(".lora_")[0] for name, parameter in module.student.named_parameters() if parameter.requires_grad
    }
    assert names
    assert all(name.endswith((".net.2", ".conv1")) for name in names)


def test_what_cannot_share_weights_is_refused(teacher_folder, latents_folder, tmp_path):
    with pytest.raises(UserError, match="teacher_dtype is bfloat16, but with an adapter"):
        lora_of(teacher_folder, networks=NetworkOptions("bfloat16"))
    with pytest.raises(UserError, match="strategy is Sharded, but with an adapter"):
        adapters.check_strategy(LoRA(), Sharded())
    adapters.check_strategy(None, Sharded())


def test_alpha_scales_what_is_merged(teacher_folder):
    """W + (alpha / rank) B A, in closed form."""
    from bsa_lightning.models.lora import merged_weights

    student = lora_of(teacher_folder, adapter=LoRA(2, alpha=6.0)).student.double()
    name = next(name for name, _ in student.named_parameters() if name.endswith("to_q.base_layer.weight"))
    layer = student.get_submodule(name.removesuffix(".base_layer.weight"))
    up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
    torch.nn.init.normal_(up, generator=torch.Generator().manual_seed(0))
    merged = merged_weights(student)[name.replace(".base_layer.", ".")]
    torch.testing.assert_close(merged, layer.base_layer.weight.detach() + 3 * (up @ down).detach(), **IDENTITY)


@pytest.mark.slow
def test_a_compiled_ladder_makes_the_same_students(finished, teacher_folder, latents_folder, tmp_path, monkeypatch):
    """Also where the second teacher gets an input for the guidance scale; graphs are run as they were traced."""
    compile_network = functools.partialmethod(Denoiser.compile_network, backend="eager")
    monkeypatch.setattr(Denoiser, "compile_network", compile_network)
    module = lora_of(teacher_folder, guidance=Embedded(2.0), networks=NetworkOptions(compile=True))
    trainer_of(tmp_path).fit(module, data_of(latents_folder))
    for name in ("1-4steps", "2-2steps"):
        ours, plain = (load_denoiser(run / "rounds" / name).state_dict() for run in (tmp_path, finished("embedded")[0]))
        for part, tensor in ours.items():
            torch.testing.assert_close(tensor, plain[part], rtol=0, atol=1e-3)
