"""The truth is what diffusers' own AudioLDM2Pipeline hands to its UNet and gets back, recorded while it runs."""

import inspect
import json
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
from audioldm_models import LATENT_SHAPE, NUM_GENERATED, edit, write_audioldm2
from tiny_model import CAPTIONS, NUM_SAMPLES
from tolerances import FLOAT32

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_conditioner, load_denoiser, load_parts, read_provenance

FOLDERS = ["text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "projection_model", "language_model"]
LAST = CAPTIONS[2]

runs_the_pipeline = pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")
"""diffusers hands transformers an argument by its old name."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_audioldm2(tmp_path_factory.mktemp("audioldm2"))


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
    from diffusers import AudioLDM2Pipeline

    return AudioLDM2Pipeline.from_pretrained(folder, low_cpu_mem_usage=False)


def test_defaults_are_the_pipelines(teacher, folder):
    parameters = inspect.signature(pipeline_of(folder).__call__).parameters
    assert teacher.sampling.num_steps == parameters["num_inference_steps"].default
    assert teacher.sampling.scale() == parameters["guidance_scale"].default


def test_the_length_is_that_of_the_unet(teacher):
    assert teacher.codec.latent_shape == LATENT_SHAPE
    assert teacher.codec.num_samples == NUM_SAMPLES


@runs_the_pipeline
@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_prediction_is_the_pipelines(teacher, folder, caption):
    """The pipeline's null is padded to the caption, so that only the caption's own row compares."""
    z_t, t, named, output = recorded(pipeline_of(folder), caption, guidance_scale=3.5)
    compare(teacher, teacher.conditioner([caption]), z_t, t, named, output, rows=slice(1, 2))


@runs_the_pipeline
def test_the_null_is_the_pipelines(teacher, folder):
    """Beside an empty caption there is no padding."""
    z_t, t, named, output = recorded(pipeline_of(folder), "", guidance_scale=3.5)
    compare(teacher, teacher.conditioner.null().repeat(2), z_t, t, named, output, rows=slice(0, 2))


def compare(teacher, conditioning, z_t, t, named, output, *, rows):
    assert set(named) == {"return_dict", *teacher.denoiser.inputs(conditioning)}
    for name, value in teacher.denoiser.inputs(conditioning).items():
        torch.testing.assert_close(value, named[name][rows].to(value.dtype), **FLOAT32)
    with torch.no_grad():
        torch.testing.assert_close(teacher.denoiser(z_t[rows], t[rows], conditioning).eps, output[rows], **FLOAT32)


def test_the_conditioning_of_a_clip_is_its_captions_alone(teacher, captions):
    together = teacher.conditioner([*captions, ""])
    assert together.tensors["generated"].shape[:2] == (4, NUM_GENERATED)
    assert torch.pdist(together.tensors["generated"].flatten(1)).min() > 0.1
    alone = [*(teacher.conditioner([caption]) for caption in captions), teacher.conditioner.null()]
    for i, (clip, own) in enumerate(zip(together.split(), alone, strict=True)):
        assert torch.equal(clip.tensors["generated"], own.tensors["generated"]), i
        assert torch.equal(clip.tensors["states"], own.tensors["states"]), i


def test_padding_of_captions_has_no_influence(teacher, captions):
    z_t, t = torch.randn(1, *LATENT_SHAPE), torch.tensor([0.5])
    alone, padded = teacher.conditioner(captions[1:2]), teacher.conditioner(captions)[1:2]
    assert padded.tensors["states"].shape[1] > alone.tensors["states"].shape[1]
    torch.testing.assert_close(teacher.denoiser(z_t, t, alone).x, teacher.denoiser(z_t, t, padded).x, **FLOAT32)


@pytest.mark.parametrize("name", ["generated", "states"])
def test_both_kinds_of_states_matter(teacher, captions, name):
    z_t, t, conditioning = torch.randn(3, *LATENT_SHAPE), torch.full((3,), 0.5), teacher.conditioner(captions)
    other = Conditioning({**conditioning.tensors, name: -conditioning.tensors[name]}, conditioning.masks)
    assert (teacher.denoiser(z_t, t, conditioning).eps - teacher.denoiser(z_t, t, other).eps).abs().max() > 1e-3


def test_a_student_of_two_rounds_makes_sound(student, captions):
    provenance = read_provenance(student)
    assert (provenance["pipeline"], provenance["num_steps"]) == ("AudioLDM2Pipeline", 2)
    made = sounds(student, captions, torch.randn(3, *LATENT_SHAPE), guidance_scale=2.0)
    assert made.shape == (3, NUM_SAMPLES)
    assert made.isfinite().all()


def published(folder, out):
    """The model of ``folder`` as it is published: its language model has no head."""
    from transformers import GPT2LMHeadModel

    shutil.copytree(folder, out)
    generated = json.loads((folder / "language_model" / "config.json").read_text()).get("max_new_tokens")
    shutil.rmtree(out / "language_model")
    GPT2LMHeadModel.from_pretrained(folder / "language_model").transformer.save_pretrained(out / "language_model")
    edit(out / "language_model" / "config.json", max_new_tokens=generated)
    edit(out / "model_index.json", language_model=["transformers", "GPT2Model"])
    return out


@runs_the_pipeline
@pytest.mark.parametrize(
    ("student", "as_published"), [("outside", False), ("baked", False), ("baked", True)], indirect=["student"]
)
def test_diffusers_samples_a_student_as_we_do(student, as_published, folder, tmp_path):
    """Of a published teacher too, whose language model diffusers' pipeline cannot run as it is."""
    teacher = published(folder, tmp_path / "published") if as_published else None
    pipeline = pipeline_of(exported(student, tmp_path / "whole", teacher=teacher))
    noise = torch.randn(1, *LATENT_SHAPE)
    audios = pipeline(LAST, num_inference_steps=2, guidance_scale=1.0, latents=noise).audios
    check_same_sounds(sounds(student, [LAST], noise, guidance_scale=1.0), audios)


def test_guidance_input(folder, teacher, captions, tmp_path):
    z_t = torch.randn(3, *LATENT_SHAPE)
    check_guidance_input(load_denoiser(folder), teacher.conditioner(captions), z_t, tmp_path)


def test_shapes(folder, teacher, captions):
    check_shapes(folder, teacher.denoiser, teacher.conditioner(captions))


def test_gradient_checkpointing(folder, teacher, captions):
    check_gradient_checkpointing(load_denoiser(folder), teacher.conditioner(captions), torch.randn(3, *LATENT_SHAPE))


def test_the_published_language_model_has_no_head(folder, teacher, captions, tmp_path):
    """And its index says so: diffusers' pipeline cannot run such a folder, ours can."""
    ours = load_conditioner(published(folder, tmp_path / "model"))(captions)
    assert torch.equal(ours.tensors["generated"], teacher.conditioner(captions).tensors["generated"])


def test_a_language_model_that_does_not_say_makes_eight_states(folder, tmp_path):
    whole = shutil.copytree(folder, tmp_path / "model")
    edit(whole / "language_model" / "config.json", max_new_tokens=None)
    assert load_conditioner(whole).null().tensors["generated"].shape[1] == 8


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_without_a_part_of_its_text_side_is_refused(folder, tmp_path, name):
    whole = shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(whole / name)
    with pytest.raises(UserError, match=rf"is not a .*model folder: it has no {name}/"):
        load_conditioner(whole)


def test_a_speech_model_is_refused(folder, tmp_path):
    whole = shutil.copytree(folder, tmp_path / "model")
    edit(whole / "text_encoder_2" / "config.json", model_type="vits")
    with pytest.raises(UserError, match=r'text_encoder_2 of .* is a "vits", but only T5 is supported'):
        load_conditioner(whole)


@pytest.mark.parametrize("name", FOLDERS)
def test_another_text_side_has_another_fingerprint(folder, teacher, tmp_path, name):
    whole = shutil.copytree(folder, tmp_path / "model")
    (whole / name / "note").write_text("another")
    assert load_conditioner(whole).fingerprint != teacher.conditioner.fingerprint
