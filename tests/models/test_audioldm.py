"""The truth is what diffusers' own AudioLDMPipeline hands to its UNet and gets back, recorded while it runs."""

import inspect
import shutil

import pytest
import torch
from audioldm_checks import (
    MODES,
    check_gradient_checkpointing,
    check_guidance_input,
    check_same_sounds,
    check_shapes,
    distilled,
    exported,
    prepared,
    recorded,
    sounds,
)
from audioldm_models import LATENT_SHAPE, write_audioldm
from tiny_model import NUM_SAMPLES
from tolerances import FLOAT32

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_conditioner, load_denoiser, load_parts, read_provenance


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_audioldm(tmp_path_factory.mktemp("audioldm"))


@pytest.fixture(scope="module")
def teacher(folder):
    return load_parts(folder)


@pytest.fixture(scope="module")
def latents(folder, tmp_path_factory):
    return prepared(folder, tmp_path_factory.mktemp("latents") / "store")


@pytest.fixture(scope="module", params=MODES)
def student(request, folder, latents, tmp_path_factory):
    return distilled(folder, latents, tmp_path_factory.mktemp(request.param), request.param)


def pipeline_of(folder):
    from diffusers import AudioLDMPipeline

    return AudioLDMPipeline.from_pretrained(folder, low_cpu_mem_usage=False)


def test_defaults_are_the_pipelines(teacher, folder):
    parameters = inspect.signature(pipeline_of(folder).__call__).parameters
    assert teacher.sampling.num_steps == parameters["num_inference_steps"].default
    assert teacher.sampling.scale() == parameters["guidance_scale"].default


def test_the_length_is_that_of_the_unet(teacher):
    assert teacher.codec.latent_shape == LATENT_SHAPE
    assert teacher.codec.num_samples == NUM_SAMPLES


def test_a_prediction_is_the_pipelines(teacher, folder, captions):
    z_t, t, named, output = recorded(pipeline_of(folder), captions, guidance_scale=2.5)
    conditioning = Conditioning.cat([teacher.conditioner.null().repeat(3), teacher.conditioner(captions)])
    assert named["encoder_hidden_states"] is None
    torch.testing.assert_close(conditioning.tensors["embedding"], named["class_labels"], **FLOAT32)
    assert torch.pdist(named["class_labels"][2:]).min() > 0.1  # or any caption would pass for any other
    with torch.no_grad():
        torch.testing.assert_close(teacher.denoiser(z_t, t, conditioning).eps, output, **FLOAT32)


def test_a_student_of_two_rounds_makes_sound(student, captions):
    provenance = read_provenance(student)
    assert (provenance["pipeline"], provenance["num_steps"]) == ("AudioLDMPipeline", 2)
    made = sounds(student, captions, torch.randn(3, *LATENT_SHAPE), guidance_scale=2.0)
    assert made.shape == (3, NUM_SAMPLES)
    assert made.isfinite().all()


@pytest.mark.parametrize(
    ("student", "scale"), [("outside", 2.0), ("outside", 1.0), ("baked", 1.0)], indirect=["student"]
)
def test_diffusers_samples_a_student_as_we_do(student, scale, tmp_path, captions):
    pipeline = pipeline_of(exported(student, tmp_path / "whole"))
    noise = torch.randn(3, *LATENT_SHAPE)
    audios = pipeline(captions, num_inference_steps=2, guidance_scale=scale, latents=noise).audios
    check_same_sounds(sounds(student, captions, noise, guidance_scale=scale), audios)


def test_guidance_input(folder, teacher, captions, tmp_path):
    z_t = torch.randn(3, *LATENT_SHAPE)
    check_guidance_input(load_denoiser(folder), teacher.conditioner(captions), z_t, tmp_path)


def test_shapes(folder, teacher, captions):
    check_shapes(folder, teacher.denoiser, teacher.conditioner(captions))


def test_gradient_checkpointing(folder, teacher, captions):
    check_gradient_checkpointing(load_denoiser(folder), teacher.conditioner(captions), torch.randn(3, *LATENT_SHAPE))


@pytest.mark.parametrize("name", ["text_encoder/config.json", "tokenizer/tokenizer_config.json"])
def test_a_folder_without_its_text_side_is_refused(folder, tmp_path, name):
    whole = shutil.copytree(folder, tmp_path / "model")
    (whole / name).unlink()
    with pytest.raises(UserError, match=rf"is not a model folder: it has no {name}"):
        load_conditioner(whole)


@pytest.mark.parametrize("name", ["text_encoder", "tokenizer"])
def test_another_text_side_has_another_fingerprint(folder, teacher, tmp_path, name):
    whole = shutil.copytree(folder, tmp_path / "model")
    (whole / name / "note").write_text("another")
    assert load_conditioner(whole).fingerprint != teacher.conditioner.fingerprint
