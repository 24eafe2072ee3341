"""Whole ladders on the device: as on the CPU, by every method, and the same bytes after a death."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ladder import StopAt, data_of, module_of, trainer_of
from places import context_of, trainer_on
from tolerances import LADDERS, LOW_PRECISION

from bsa_lightning.distillation.denoising import Denoising
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.distillation.methods import SegmentedConsistency
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import load_denoiser
from bsa_lightning.models.lora import LoRA
from bsa_lightning.training.latent_module import NetworkOptions
from bsa_lightning.training.sharding import Sharded

# Under plain gradient descent rounding stays rounding; Adam makes steps of it.
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
SETTINGS = {
    "outside": {"guidance": Outside(2.0, caption_dropout=0.5)},
    "baked": {"guidance": Baked(2.0)},
    "embedded": {"guidance": Embedded(2.0)},
    "segmented consistency": {"method": SegmentedConsistency()},
    "LoRA": {"adapter": LoRA(2)},
}
VALIDATED = {"limit_val_batches": 1.0, "val_check_interval": 4, "check_val_every_n_epoch": None}


def ladder(run, teacher, latents, *callbacks, on, settings=None, ckpt_path=None, **trainer):
    module = module_of(teacher, **{"optimizer": SGD} | (settings or {}))
    trainer = trainer_of(run, *callbacks, **trainer_on(on) | trainer)
    trainer.fit(module, data_of(latents), ckpt_path=ckpt_path, weights_only=True)
    return module, trainer


def weights(module):
    return torch.cat([parameter.detach().cpu().flatten() for parameter in module.finished_student.parameters()])


def students(run):
    return {path.parent.parent.name: path.read_bytes() for path in (run / "rounds").rglob("*.safetensors")}


def moved(module, teacher):
    """How far a ladder has carried the weights, and how far two ladders are apart in units of it."""
    start = torch.cat([parameter.detach().flatten() for parameter in load_denoiser(teacher).parameters()])
    return (weights(module)[: len(start)] - start).norm()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_ladder_is_that_of_the_cpu(name, device, teacher_folder, latents_folder, tmp_path):
    settings = {"ema_decay": 0.5} | SETTINGS[name]
    there, trainer = ladder(
        tmp_path / "there", teacher_folder, latents_folder, on=device.type, settings=settings, **VALIDATED
    )
    here, other = ladder(tmp_path / "here", teacher_folder, latents_folder, on="cpu", settings=settings, **VALIDATED)
    torch.testing.assert_close(weights(there), weights(here), **LADDERS)
    for metric, value in other.callback_metrics.items():
        assert float(trainer.callback_metrics[metric]) == pytest.approx(float(value), rel=1e-3), metric


def test_a_fine_tuning_is_that_of_the_cpu(device, teacher_folder, latents_folder, tmp_path):
    ends = []
    for place in (device.type, "cpu"):
        module = Denoising(str(teacher_folder), optimizer=SGD, ema_decay=0.5)
        trainer = trainer_of(tmp_path / place, **trainer_on(place) | VALIDATED | {"max_steps": 4})
        trainer.fit(module, data_of(latents_folder))
        ends.append((module, float(trainer.callback_metrics["val/loss"])))
    (there, loss), (here, expected) = ends
    torch.testing.assert_close(
        *(torch.cat([p.detach().cpu().flatten() for p in m.parameters()]) for m in (there, here)), **LADDERS
    )
    assert loss == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_ladder_in_mixed_precision_goes_where_that_in_float32_goes(
    precision, cuda, teacher_folder, latents_folder, tmp_path
):
    mixed, _ = ladder(tmp_path / "a", teacher_folder, latents_folder, on=cuda.type, precision=precision)
    exact, _ = ladder(tmp_path / "b", teacher_folder, latents_folder, on=cuda.type)
    way = moved(exact, teacher_folder)
    assert 0 < (weights(mixed) - weights(exact)).norm() < 0.2 * way


def test_a_teacher_in_bfloat16_teaches_nearly_the_same(device, teacher_folder, latents_folder, tmp_path):
    settings = {"networks": NetworkOptions("bfloat16")}
    rounded, _ = ladder(tmp_path / "a", teacher_folder, latents_folder, on=device.type, settings=settings)
    exact, _ = ladder(tmp_path / "b", teacher_folder, latents_folder, on=device.type)
    assert 0 < (weights(rounded) - weights(exact)).norm() < 0.2 * moved(exact, teacher_folder)


@pytest.mark.parametrize("option", ["gradient_checkpointing", "accumulate"])
def test_the_same_ladder_with_less_memory(option, device, teacher_folder, latents_folder, tmp_path):
    settings, trainer = {}, {}
    if option == "accumulate":
        trainer = {"accumulate_grad_batches": 2}
    else:
        settings = {"networks": NetworkOptions(gradient_checkpointing=True)}
    there, _ = ladder(tmp_path / "a", teacher_folder, latents_folder, on=device.type, settings=settings, **trainer)
    here, _ = ladder(tmp_path / "b", teacher_folder, latents_folder, on="cpu", **trainer)
    torch.testing.assert_close(weights(there), weights(here), **LADDERS)


def test_a_ladder_that_dies_ends_in_the_same_bytes(device, teacher_folder, latents_folder, tmp_path):
    """In processes of their own, since cuBLAS reads its setting when it starts."""
    run = functools.partial(in_process, device, teacher_folder, latents_folder)
    run(tmp_path / "whole")
    run(tmp_path / "dead", stop=5)
    run(tmp_path / "dead", resume=True)
    whole = students(tmp_path / "whole")
    assert len(whole) == 2
    assert students(tmp_path / "dead") == whole


def in_process(device, teacher, latents, run, *, stop=0, resume=False):
    words = [device.type, str(teacher), str(latents), str(run), str(stop), str(int(resume))]
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, __file__, *words]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == (1 if stop else 0), ended.stderr[-2000:]


def one_ladder(place, teacher, latents, run, stop, resume):
    torch.use_deterministic_algorithms(True)
    callbacks = [StopAt(int(stop))] if int(stop) else []
    last = Path(run) / "checkpoints" / "last.ckpt" if int(resume) else None
    settings = {"ema_decay": 0.5, "optimizer": functools.partial(torch.optim.Adam, lr=1e-3)}
    with context_of(place):
        ladder(Path(run), teacher, latents, *callbacks, on=place, settings=settings, ckpt_path=last)


def test_a_ladder_begun_here_goes_on_on_the_cpu(device, teacher_folder, latents_folder, tmp_path):
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        ladder(tmp_path, teacher_folder, latents_folder, StopAt(3), on=device.type)
    there, _ = ladder(tmp_path, teacher_folder, latents_folder, on="cpu", ckpt_path=last)
    here, _ = ladder(tmp_path / "whole", teacher_folder, latents_folder, on="cpu")
    torch.testing.assert_close(weights(there), weights(here), **LADDERS)


@pytest.mark.timeout(240)
def test_networks_sharded_over_one_device(cuda, teacher_folder, latents_folder, tmp_path):
    """FSDP2, in a process group of its own."""
    ladder(tmp_path / "a", teacher_folder, latents_folder, on=cuda.type, strategy=Sharded())
    torch.distributed.destroy_process_group()
    ladder(tmp_path / "b", teacher_folder, latents_folder, on=cuda.type)
    folders = [sorted((tmp_path / run / "rounds").iterdir()) for run in ("a", "b")]
    for one, other in zip(*folders, strict=True):
        pairs = zip(load_denoiser(one).parameters(), load_denoiser(other).parameters(), strict=True)
        assert all(torch.allclose(a, b, **LADDERS) for a, b in pairs)


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated", "ignore:.*TensorFloat32")
def test_a_compiled_ladder_is_the_same(cuda, teacher_folder, latents_folder, tmp_path):
    settings = {"plan": Plan(4, 2, 4), "networks": NetworkOptions(compile=True)}
    compiled, _ = ladder(tmp_path / "a", teacher_folder, latents_folder, on=cuda.type, settings=settings)
    plain, _ = ladder(
        tmp_path / "b", teacher_folder, latents_folder, on=cuda.type, settings=settings | {"networks": None}
    )
    difference = (weights(compiled) - weights(plain)).norm() / moved(plain, teacher_folder)
    assert difference < LOW_PRECISION


if __name__ == "__main__":
    one_ladder(*sys.argv[1:])
