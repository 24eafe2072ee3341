"""A student's whole folder: opened by its pipeline class, whatever its guidance, and true to our own sampler."""

import json

import pytest
import torch
from ladder import data_of, module_of, trainer_of
from tiny_model import CAPTIONS, LATENT_SHAPE
from tolerances import SAMPLES

from bsa_lightning import TangoPipeline
from bsa_lightning.distillation.export import export_student
from bsa_lightning.distillation.guidance import Baked, Embedded, Outside
from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.generation import generate_latents
from bsa_lightning.teachers.folder import load_teacher

NOISE = torch.randn(3, *LATENT_SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=[Outside(2.0), Baked(2.0), Embedded(2.0, 1.0, 5.0)], ids=lambda mode: mode.name)
def exported(request, teacher_folder, latents_folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    trainer_of(run).fit(module_of(teacher_folder, guidance=request.param), data_of(latents_folder))
    export_student(run / "rounds" / "2-2steps", run / "exported", scores=["| a table |"])
    return request.param, run / "rounds" / "2-2steps", run / "exported"


@torch.no_grad()
@pytest.mark.parametrize("asked", [None, 4.0])
def test_the_pipeline_samples_it_as_we_do(exported, asked):
    guidance, student_folder, folder = exported
    pipeline = TangoPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    if guidance.name == "baked" and asked is not None:
        with pytest.raises(UserError, match="baked in"):
            pipeline(CAPTIONS, guidance_scale=asked)
        return
    student = load_teacher(student_folder)
    expected = generate_latents(
        denoiser=student.denoiser,
        conditioning=student.conditioner(CAPTIONS),
        null=student.conditioner.null(),
        guidance_scale=student.sampling.scale(asked),
        num_steps=2,
        noise=NOISE,
    )
    evaluated = []
    pipeline.unet.register_forward_hook(lambda _m, args, _o: evaluated.append(len(args[0])))
    latents = pipeline(CAPTIONS, latents=NOISE, guidance_scale=asked, output_type="latent").audios
    torch.testing.assert_close(latents, expected, **SAMPLES)
    assert evaluated == ([6, 6] if guidance.name == "outside" else [3, 3])


def test_our_own_commands_open_it_without_its_teacher(exported):
    _, student_folder, folder = exported
    alone, borrowing = load_teacher(folder), load_teacher(student_folder)
    assert alone.sampling == borrowing.sampling
    assert alone.codec.fingerprint == borrowing.codec.fingerprint


def test_its_card_says_where_it_comes_from(exported, teacher_folder):
    guidance, _, folder = exported
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for words in ("2-step student (bsa)", f"{guidance.name}, 2.0", "gamma = 5.0", "| a table |", "inherited"):
        assert words in card
    assert str(teacher_folder) not in card + (folder / "provenance.json").read_text()
    assert json.loads((folder / "provenance.json").read_text())["round"] == 2


def test_an_existing_folder_is_refused(exported):
    with pytest.raises(UserError, match="exists already"):
        export_student(exported[1], exported[2])
