"""A family of flow models from outside of the package distils, is exported and makes sound without a change here."""

import pytest
import torch
from ladder import data_of, module_of, trainer_of
from outside_flow import FRAMES, LONGEST, SAMPLES_A_FRAME, OutsideDenoiser, write_outside_model
from tolerances import FLOAT32
from toy_clips import ToyClips

import bsa_lightning as bsa
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.diffusion.weighting import FlowBSA
from bsa_lightning.distillation.export import export_student
from bsa_lightning.distillation.guidance_modes import Baked, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.predictor import predictor

CAPTIONS = ["rain", "two birds sing in the rain", "a dog barks"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_outside_model(tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    return_to = tmp_path_factory.mktemp("latents") / "store"
    prepare_folder(ToyClips(8), return_to, str(folder), batch_size=4)
    return return_to


@pytest.mark.parametrize("guidance", [Baked(2.0), Outside(2.0, 0.5)], ids=lambda mode: mode.name)
def test_distils_in_two_rounds_and_is_exported(folder, store, guidance, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    module = module_of(folder, plan=Plan(4, 1, 3), weighting=FlowBSA(), guidance=guidance)
    trainer_of(run).fit(module, data_of(store))
    student = run / "rounds" / "2-1steps"
    export_student(student, out)
    sounds = [bsa.load_model(place)(CAPTIONS, seed=3).audios for place in (student, out)]
    assert sounds[0].shape == (3, FRAMES * SAMPLES_A_FRAME)
    assert (sounds[0] == sounds[1]).all()
    assert (sounds[0] != bsa.load_model(folder)(CAPTIONS, seed=3, num_steps=1).audios).any()


@torch.no_grad()
def test_a_guided_batch_has_the_null_of_each_caption(folder):
    parts = load_parts(folder)
    assert isinstance(parts.denoiser, OutsideDenoiser)
    z, t = torch.randn(3, 4, FRAMES, generator=torch.Generator().manual_seed(0)), torch.full((3,), 0.5)
    conditioning, null = parts.conditioner(CAPTIONS), parts.conditioner.null()
    together = predictor(parts.denoiser, conditioning, null=null, guidance_scale=3.0)(z, t)
    for i, caption in enumerate(CAPTIONS):
        own = slice(i, i + 1)
        alone = predictor(parts.denoiser, parts.conditioner([caption]), null=null, guidance_scale=3.0)(z[own], t[own])
        torch.testing.assert_close(together.x[own], alone.x, **FLOAT32)
    first = parts.denoiser.null_beside(null, conditioning)
    assert first.masks["words"].sum(1).tolist() == [1, LONGEST, 3]


def test_latents_of_another_family_are_refused(folder, latents_folder, tmp_path):
    with pytest.raises(bsa.UserError, match="was prepared with another"):
        trainer_of(tmp_path / "run").fit(module_of(folder), data_of(latents_folder))
