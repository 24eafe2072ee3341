"""Two processes that share the networks between them, against two that hold all of them, and against one alone."""

import contextlib
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ladder import Watch, data_of, draw_in_halves, module_of, trainer_of
from lightning.pytorch import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file
from tolerances import FLOAT32
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation.guidance_modes import Embedded
from bsa_lightning.distillation.methods import SegmentedConsistency
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import load_denoiser
from bsa_lightning.training.latent_module import NetworkOptions
from bsa_lightning.training.sharding import Sharded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
TESTS = Path(__file__).parent.parent
PLAN = Plan(4, 1, 2)
EXTRAS = {
    "bf16": ({}, {"precision": "bf16-mixed"}),
    "accumulated": ({}, {"accumulate_grad_batches": 2}),
    "segmented": ({"method": SegmentedConsistency()}, {}),
    "checkpointed": ({"networks": NetworkOptions("bfloat16", gradient_checkpointing=True)}, {}),
}


def fit(run, teacher, latents, *callbacks, strategy, settings=None, resume=False, **options):
    """A ladder under plain gradient descent, so that rounding stays rounding: Adam makes steps of it."""
    module = module_of(
        teacher,
        guidance=Embedded(2.0),  # which changes the teacher's network when the first student becomes it
        ema_decay=0.5,
        optimizer=functools.partial(torch.optim.SGD, lr=1.0, momentum=0.9),
        **{"plan": PLAN} | (settings or {}),
    )
    trainer = trainer_of(run, *callbacks, devices=2, strategy=strategy, **{"gradient_clip_val": 0.05} | options)
    # One checkpoint is enough: each gathers every tensor on its own.
    trainer.checkpoint_callback._every_n_train_steps = 3
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        trainer.fit(module, data_of(latents), ckpt_path=last(run) if resume else None, weights_only=True)
    return trainer


def last(run):
    return run / "checkpoints" / "last.ckpt"


def share(tensor):
    return tensor.to_local().numel() / tensor.numel() if isinstance(tensor, DTensor) else 1.0


def held(trainer, module, batch):
    """The share of weights, gradients' momentum and averages that this process holds."""
    momentum = [state["momentum_buffer"] for state in trainer.optimizers[0].state.values()]
    parts = {"teacher": module.teacher.parameters(), "student": module.student.parameters(), "momentum": momentum}
    parts["average"] = module.ema.parameters()
    sizes = {name: [(tensor.numel(), share(tensor)) for tensor in tensors] for name, tensors in parts.items()}
    shares = {name: sum(n * s for n, s in size) / sum(n for n, _ in size) for name, size in sizes.items()}
    file = Path(trainer.default_root_dir) / f"held-{trainer.global_rank}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(shares))


def stop(trainer, module, batch):
    """Dies where the next ``Watch`` would be called, after the promotion and a checkpoint."""
    if module.global_step == 3:
        trainer.save_checkpoint(last(Path(trainer.default_root_dir)))
        raise KeyboardInterrupt


def ladders(out, teacher, latents):
    """What both processes run."""
    torch.set_num_threads(1)
    fit(out / "sharded", teacher, latents, Watch(held), strategy=Sharded())
    fit(out / "ddp", teacher, latents, strategy="ddp")
    fit(out / "stopped", teacher, latents, Watch(stop), strategy=Sharded())
    fit(out / "stopped", teacher, latents, strategy=Sharded(), resume=True)


def extra_ladders(out, teacher, latents):
    for name, (settings, options) in EXTRAS.items():
        for strategy in (Sharded(), "ddp"):
            run = out / f"{name}-{'ddp' if strategy == 'ddp' else 'sharded'}"
            fit(run, teacher, latents, strategy=strategy, settings=settings, **options)
    for name, strategy in (("sharded", Sharded()), ("ddp", "ddp")):
        trainer = fit(
            out / f"validated-{name}", teacher, latents, strategy=strategy,
            limit_val_batches=1.0, val_check_interval=2, check_val_every_n_epoch=None, num_sanity_val_steps=1,
        )  # fmt: skip
        if trainer.is_global_zero:
            metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
            (out / f"{name}.json").write_text(json.dumps(metrics))
    fit(out / "went-on", teacher, latents, Watch(stop), strategy="ddp")
    fit(out / "went-on", teacher, latents, strategy=Sharded(), resume=True)
    fit(out / "whole", teacher, latents, strategy="ddp")


class Script(Callback):
    """Tells the rounds errors that have risen where the first of them cools down and ends, and fall in the second."""

    def on_fit_start(self, trainer, pl_module):
        errors, clips = {2: 0.8, 4: 0.9, 5: 0.9, 6: 0.8, 8: 0.7, 9: 0.6, 10: 0.5}, torch.arange(3.0).double()
        pl_module.clip_errors.compute = lambda: clips + errors[pl_module.global_step]


def judged_ladders(out, teacher, latents):
    fit = functools.partial(
        globals()["fit"], settings={"plan": Plan(4, 1, 5, patience=9)}, limit_val_batches=1, val_check_interval=2,
        check_val_every_n_epoch=None,
    )  # fmt: skip
    fit(out / "sharded", teacher, latents, Script(), strategy=Sharded())
    fit(out / "ddp", teacher, latents, Script(), strategy="ddp")
    fit(out / "stopped", teacher, latents, Script(), Watch(stop), strategy=Sharded())
    fit(out / "stopped", teacher, latents, Script(), strategy=Sharded(), resume=True)


def two_processes(what, *paths):
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, what]
        + [str(path) for path in paths],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-5000:]
    return paths[0]


def students(run):
    files = sorted((run / "rounds").rglob("*.safetensors"))
    assert len(files) == 2
    return {f"{path.parent.parent.name} {name}": tensor for path in files for name, tensor in load_file(path).items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, teacher_folder, latents_folder):
    return two_processes("ladders", tmp_path_factory.mktemp("sharding"), teacher_folder, latents_folder)


def test_each_process_holds_its_half_alone(runs):
    for rank in range(2):
        shares = json.loads((runs / "sharded" / f"held-{rank}.json").read_text())
        assert shares == pytest.approx(dict.fromkeys(shares, 0.5), abs=0.03)  # what a round adds is small and whole


def test_students_are_those_of_whole_networks(runs, teacher_folder):
    sharded, ddp = students(runs / "sharded"), students(runs / "ddp")
    torch.testing.assert_close(sharded, ddp, **FLOAT32)
    start = load_denoiser(teacher_folder).network.state_dict()
    moved = max(float((tensor - start[name]).abs().max()) for name, tensor in _of_round(sharded, 2) if name in start)
    assert moved > 100 * FLOAT32["atol"]
    assert (runs / "sharded" / "rounds" / "2-1steps" / "unet" / "config.json").read_text() == (
        runs / "ddp" / "rounds" / "2-1steps" / "unet" / "config.json"
    ).read_text()


def test_students_are_those_of_one_process_with_both_batches(runs, teacher_folder, latents_folder, tmp_path):
    module = module_of(
        teacher_folder,
        plan=PLAN,
        guidance=Embedded(2.0),
        ema_decay=0.5,
        optimizer=functools.partial(torch.optim.SGD, lr=1.0, momentum=0.9),
    )

    draw_in_halves(module, lambda half: {"rank": half})
    trainer_of(tmp_path, gradient_clip_val=0.05).fit(module, data_of(latents_folder, batch_size=8))
    torch.testing.assert_close(students(runs / "sharded"), students(tmp_path), **FLOAT32)


def test_resumed_equals_uninterrupted(runs):
    resumed, untouched = students(runs / "stopped"), students(runs / "sharded")
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in resumed.items())


def test_checkpoints_are_those_of_whole_networks(runs):
    """One file with plain tensors, which any strategy goes on from."""
    sharded, ddp = (torch.load(last(runs / name), weights_only=True) for name in ("sharded", "ddp"))
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(sharded[part], ddp[part], **FLOAT32)
    assert not any(isinstance(leaf, DTensor) for leaf in tree_leaves(sharded))


@pytest.mark.timeout(600)
def test_what_else_a_run_may_ask_for(tmp_path, teacher_folder, latents_folder):
    out = two_processes("extra_ladders", tmp_path, teacher_folder, latents_folder)
    for name in EXTRAS:
        # Rounding to bfloat16 may fall the other way: 2^-8 of a step of the size of a weight's movement.
        tolerance = {"rtol": 0.0, "atol": 1e-3} if name == "bf16" else FLOAT32
        torch.testing.assert_close(students(out / f"{name}-sharded"), students(out / f"{name}-ddp"), **tolerance)
    sharded, ddp = (json.loads((out / f"{name}.json").read_text()) for name in ("sharded", "ddp"))
    assert sharded == pytest.approx(ddp, rel=1e-4)
    torch.testing.assert_close(students(out / "went-on"), students(out / "whole"), **FLOAT32)
    assert {"val/distillation_error", "val/trajectory_error"} <= sharded.keys()


def test_a_sharded_round_is_rolled_back(tmp_path, teacher_folder, latents_folder):
    """Also with the best weights from a checkpoint, where they are whole."""
    out = two_processes("judged_ladders", tmp_path, teacher_folder, latents_folder)
    sharded = students(out / "sharded")
    torch.testing.assert_close(sharded, students(out / "ddp"), **FLOAT32)
    assert all(torch.equal(tensor, sharded[name]) for name, tensor in students(out / "stopped").items())
    for name in ("sharded", "ddp", "stopped"):
        budget = json.loads((out / name / "rounds" / "1-2steps" / "provenance.json").read_text())["budget"]
        assert [words.split(" updates")[0] for words in budget["decisions"]] == [
            "rolled back to the weights after 2", "cooldown from update 4 to 5",
            "rolled back to the weights after 2", "ended after 5",
        ]  # fmt: skip


def test_networks_stay_on_their_devices_when_a_fit_has_ended():
    """Lightning's own end would move the shards of GPUs to the CPU, where nothing gathers them."""
    told = []
    strategy = Sharded()
    parts = ("cluster_environment", "_precision_plugin", "_accelerator", "_checkpoint_io")
    for part in parts:
        setattr(strategy, part, SimpleNamespace(teardown=functools.partial(told.append, part)))
    strategy._lightning_module = SimpleNamespace(cpu=functools.partial(told.append, "moved"))
    strategy.teardown()
    assert sorted(told) == sorted(parts)


def test_other_ways_of_sharding_are_refused(teacher_folder, latents_folder, tmp_path):
    module = module_of(teacher_folder)
    module.trainer = trainer_of(tmp_path, strategy=ModelParallelStrategy())
    with pytest.raises(UserError, match="under which a student cannot become a teacher"):
        module.configure_model()


def _of_round(tensors, number):
    return [(name.split()[1], tensor) for name, tensor in tensors.items() if name.startswith(f"{number}-")]


if __name__ == "__main__":
    globals()[sys.argv[1]](*map(Path, sys.argv[2:]))
