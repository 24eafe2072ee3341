import contextlib
import json
import math
import shutil

import pytest
import stable_audio_model
import torch
from stable_audio_model import LATENT_SHAPE, NUM_SAMPLES, NUM_TOKENS, SAMPLE_RATE
from tolerances import FLOAT32

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_codec, load_conditioner, load_denoiser, load_parts
from bsa_lightning.models.registry import family_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory, teacher_folder):
    """Nobody writes to it."""
    return stable_audio_model.write_model(tmp_path_factory.mktemp("stable-audio"), teacher_folder)


@pytest.fixture(scope="module")
def teacher(folder):
    return load_parts(folder)


@pytest.fixture(scope="module")
def calls(folder):
    """What diffusers' pipeline gives to its transformer and gets from it, step by step, while it runs guided."""
    pipeline, recorded = stable_audio_model.read_pipeline(folder), []
    pipeline.transformer.register_forward_hook(
        lambda _module, arguments, named, output: recorded.append((*arguments, named, output[0])), with_kwargs=True
    )
    pipeline(["a dog barks", "rain"], num_inference_steps=4, guidance_scale=7.0)
    assert len(recorded) == 4
    return recorded


def both(teacher):
    """Unconditional rows, then conditional ones, as the pipeline has them."""
    conditioning = teacher.conditioner(["a dog barks", "rain"])
    return Conditioning.cat([teacher.conditioner.null().repeat(2), conditioning])


def test_shapes_and_defaults(teacher, folder):
    assert teacher.codec.latent_shape == LATENT_SHAPE
    assert (teacher.codec.num_samples, teacher.codec.sample_rate, teacher.codec.num_channels) == (128, SAMPLE_RATE, 2)
    assert (teacher.sampling.num_steps, teacher.sampling.scale()) == (100, 7.0)
    assert family_of(folder).network == "transformer"
    assert not teacher.denoiser.takes_guidance


def test_conditioning_is_what_the_pipeline_gives_its_transformer(teacher, calls):
    ours, (*_, named, _) = both(teacher).tensors, calls[0]
    assert ours["states"].shape == (4, NUM_TOKENS + 2, 12)
    torch.testing.assert_close(ours["states"], named["encoder_hidden_states"], **FLOAT32)
    torch.testing.assert_close(ours["durations"], named["global_hidden_states"], **FLOAT32)
    for mine, theirs in zip(teacher.denoiser.rotary(17, torch.device("cpu")), named["rotary_embedding"], strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("step", range(4))
def test_a_prediction_is_that_of_the_pipelines_transformer(teacher, calls, step):
    z_t, t, _, v = calls[step]
    t = t.expand(len(z_t))
    with torch.no_grad():
        x, eps = teacher.denoiser(z_t, t, both(teacher))
    angle = t.double()[:, None, None] * math.pi / 2
    torch.testing.assert_close(x, (angle.cos() * z_t - angle.sin() * v).float(), **FLOAT32)
    torch.testing.assert_close(eps, (angle.sin() * z_t + angle.cos() * v).float(), **FLOAT32)


def test_each_clip_may_have_its_own_time(teacher):
    z_t, t, conditioning = torch.randn(4, *LATENT_SHAPE), torch.tensor([0.1, 0.4, 0.7, 1.0]), both(teacher)
    with torch.no_grad():
        together = teacher.denoiser(z_t, t, conditioning).x
        alone = [teacher.denoiser(z_t[i : i + 1], t[i : i + 1], conditioning[i : i + 1]).x for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), **FLOAT32)


def test_the_published_scheduler_is_never_built(folder, teacher, tmp_path):
    published = stable_audio_model.publish(folder, tmp_path / "published")
    z_t, t, conditioning = torch.randn(4, *LATENT_SHAPE), torch.full((4,), 0.5), both(teacher)
    with torch.no_grad():
        ours, theirs = teacher.denoiser(z_t, t, conditioning), load_parts(published).denoiser(z_t, t, conditioning)
    assert torch.equal(ours.x, theirs.x)


def test_codec_is_the_librarys(folder, teacher):
    vae, waveform = stable_audio_model.read_pipeline(folder).vae, 0.3 * torch.randn(2, 2, NUM_SAMPLES)
    with torch.no_grad():
        theirs = vae.encode(waveform).latent_dist
        decoded = vae.decode(30 * theirs.mean).sample
    ours = teacher.codec.encode(waveform)
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.std, theirs.std)
    assert decoded.abs().max() > 1  # so that there is something to limit
    assert torch.equal(teacher.codec.decode(30 * ours.mean), decoded.clamp(-1, 1))


@pytest.fixture
def short(folder, tmp_path):
    """The same model for clips of half the latent's length."""
    shutil.copytree(folder, tmp_path / "short")
    (tmp_path / "short" / "provenance.json").write_text(json.dumps({"seconds": NUM_SAMPLES / SAMPLE_RATE / 2}))
    return tmp_path / "short"


def test_shorter_clips_are_padded_cut_and_told_to_the_network(short, folder, teacher):
    codec, conditioner = load_codec(short), load_conditioner(short)
    waveform = 0.3 * torch.randn(1, 2, NUM_SAMPLES // 2)
    assert (codec.num_samples, codec.latent_shape) == (NUM_SAMPLES // 2, LATENT_SHAPE)
    whole = torch.cat([waveform, torch.zeros_like(waveform)], dim=-1)
    assert torch.equal(codec.encode(waveform).mean, teacher.codec.encode(whole).mean)
    x = torch.randn(1, *LATENT_SHAPE)
    assert torch.equal(codec.decode(x), teacher.codec.decode(x)[..., : NUM_SAMPLES // 2])
    pipeline, named = stable_audio_model.read_pipeline(folder), {}
    pipeline.transformer.register_forward_pre_hook(lambda _m, _a, given: named.update(given), with_kwargs=True)
    audio = pipeline("rain", audio_end_in_s=conditioner.seconds, num_inference_steps=1, guidance_scale=1.0).audios
    assert audio.shape == waveform.shape
    ours = conditioner(["rain"]).tensors
    torch.testing.assert_close(ours["states"], named["encoder_hidden_states"], **FLOAT32)
    torch.testing.assert_close(ours["durations"], named["global_hidden_states"], **FLOAT32)
    assert codec.fingerprint != teacher.codec.fingerprint
    assert conditioner.fingerprint != teacher.conditioner.fingerprint


@pytest.mark.parametrize("seconds", [0, -1.0, 60, "ten"])
def test_a_length_that_the_latent_does_not_hold_is_refused(short, seconds):
    (short / "provenance.json").write_text(json.dumps({"seconds": seconds}))
    for load in (load_codec, load_conditioner):
        with pytest.raises(UserError, match=f"seconds is {seconds} in .* must be above 0 and at most 0.00290249"):
            load(short)


def test_a_scheduler_for_something_else_than_v_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other/scheduler/scheduler_config.json").write_text(json.dumps({"prediction_type": "epsilon"}))
    with pytest.raises(UserError, match='prediction_type is "epsilon"'):
        load_denoiser(tmp_path / "other")


@pytest.mark.parametrize(
    "missing", ["transformer/config.json", "scheduler/scheduler_config.json", "projection_model/config.json", "vae"]
)
def test_an_incomplete_folder_is_refused_in_a_sentence(folder, tmp_path, missing):
    shutil.copytree(folder, tmp_path / "part")
    (tmp_path / "part" / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"not a .*model folder"):
        load_parts(tmp_path / "part")


def test_a_network_in_half_precision_is_refused(folder):
    with pytest.raises(UserError, match=r"teacher_dtype is bfloat16, but .* use float32"):
        load_denoiser(folder, dtype=torch.bfloat16)


@pytest.mark.parametrize("first", [torch.inference_mode, contextlib.nullcontext], ids=["validated first", "not"])
def test_checkpointing_changes_no_gradient(folder, teacher, first):
    z_t, t, conditioning = torch.randn(2, *LATENT_SHAPE), torch.full((2,), 0.5), both(teacher)[:2]
    gradients = []
    for checkpointing in (False, True):
        denoiser = load_denoiser(folder).train()
        if checkpointing:
            denoiser.enable_gradient_checkpointing()
        assert denoiser.transformer.is_gradient_checkpointing is checkpointing
        with first():
            denoiser(z_t, t, conditioning)
        denoiser(z_t, t, conditioning).x.square().mean().backward()
        gradients.append(denoiser.transformer.proj_in.weight.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, **FLOAT32)
