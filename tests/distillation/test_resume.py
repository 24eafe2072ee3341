import functools

import pytest
import torch
from ladder import StopAt, data_of, module_of, trainer_of

from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation.guidance_modes import Baked, Embedded
from bsa_lightning.training.latent_module import NetworkOptions


def students(run):
    files = sorted((run / "rounds").rglob("*.safetensors"))
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


MODES = {
    "baked": {"guidance": Baked(2.0)},
    "embedded": {"guidance": Embedded(2.0)},
    "bfloat16": {"guidance": Baked(2.0), "networks": NetworkOptions("bfloat16")},
}


@pytest.fixture(scope="module")
def untouched(teacher_folder, latents_folder, tmp_path_factory):
    """The students of a mode whose run nobody stopped, made when first asked for."""

    @functools.cache
    def run(mode):
        run = tmp_path_factory.mktemp(f"untouched-{mode}")
        trainer_of(run).fit(module_of(teacher_folder, ema_decay=0.5, **MODES[mode]), data_of(latents_folder))
        return students(run)

    return run


@pytest.mark.parametrize(
    ("mode", "step"), [*(("baked", step) for step in (2, 4, 5, 6)), ("embedded", 2), ("embedded", 5), ("bfloat16", 5)]
)
def test_interrupted_and_resumed_equals_uninterrupted(untouched, teacher_folder, latents_folder, tmp_path, mode, step):
    """In a round, at the boundary (4), after it, and at the end of an epoch (6 batches)."""
    settings = {"ema_decay": 0.5} | MODES[mode]
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer_of(tmp_path, StopAt(step)).fit(module_of(teacher_folder, **settings), data_of(latents_folder))
    module = module_of(teacher_folder, **settings)
    trainer_of(tmp_path).fit(
        module, data_of(latents_folder), ckpt_path=tmp_path / "checkpoints" / "last.ckpt", weights_only=True
    )
    assert students(tmp_path) == untouched(mode)


def test_a_finished_ladder_is_left_as_it_is(teacher_folder, latents_folder, tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.fit(module_of(teacher_folder), data_of(latents_folder))
    trainer.save_checkpoint(last := tmp_path / "checkpoints" / "last.ckpt")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rounds").rglob("*")}
    trainer_of(tmp_path).fit(module_of(teacher_folder), data_of(latents_folder), ckpt_path=last, weights_only=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "rounds").rglob("*")} == before


def test_another_teacher_than_the_checkpoints_is_refused(teacher_folder, latents_folder, tmp_path):
    trainer_of(tmp_path, max_steps=5).fit(module_of(teacher_folder), data_of(latents_folder))
    path = next((tmp_path / "rounds").rglob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="holds another teacher"):
        trainer_of(tmp_path).fit(module_of(teacher_folder), data_of(latents_folder), ckpt_path=last)
    assert torch.load(last, weights_only=True)["global_step"] == 5
