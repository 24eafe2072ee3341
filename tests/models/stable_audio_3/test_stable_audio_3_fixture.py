"""Held to a folder that diffusers wrote and sampled; its README says what each tensor is."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from stable_audio_3_model import read_pipeline
from tolerances import FLOAT32

from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.predictor import predictor
from bsa_lightning.models.stable_audio_3.schedule import time_of

FIXTURE = Path(__file__).parents[4] / "shared" / "data" / "stable-audio-3-tiny"
SECONDS = 0.5
GUIDANCE = {"plain": 1.0, "guided": 4.0}

pytestmark = pytest.mark.skipif(not FIXTURE.is_dir(), reason=f"{FIXTURE} is not there")


def close_to(ours, theirs):
    """To 1e-5 of the largest value: guidance of 4 carries the rounding of the networks through the steps of a run.

    diffusers' own pipeline on another machine differs from the fixture by as much.
    """
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-5 * float(theirs.abs().max()))


@pytest.fixture(scope="module")
def expected():
    return load_file(FIXTURE / "expected.safetensors")


@pytest.fixture(scope="module")
def captions():
    with safe_open(FIXTURE / "expected.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["captions"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The fixture's model with clips of its length."""
    path = tmp_path_factory.mktemp("fixture") / "model"
    shutil.copytree(FIXTURE, path, copy_function=shutil.copyfile)
    (path / "provenance.json").write_text(json.dumps({"seconds": SECONDS}))
    return path


@pytest.fixture(scope="module")
def model(folder):
    return load_parts(folder)


@pytest.fixture(scope="module")
def conditioning(model, captions):
    return model.conditioner(captions)


def test_states_of_valid_tokens_and_the_duration_are_the_expected_ones(model, captions, conditioning, expected):
    ids, mask = model.conditioner.tokens(captions, device="cpu")
    assert torch.equal(ids.float(), expected["ids"].float())
    assert torch.equal(mask.bool(), expected["mask"].bool())
    for clips, prefix in ((conditioning, ""), (model.conditioner.null(), "null_")):
        masks, states = expected[f"{prefix}mask"].bool(), expected[f"{prefix}states"]
        assert [len(clip.tensors["states"][0]) for clip in clips.split()] == masks.sum(1).tolist()
        for clip, valid, theirs in zip(clips.split(), masks, states, strict=True):
            torch.testing.assert_close(clip.tensors["states"][0], theirs[valid], **FLOAT32)
            torch.testing.assert_close(clip.tensors["duration"], expected["duration_state"], **FLOAT32)


@pytest.mark.parametrize("prefix", ["", "null_"])
def test_the_network_is_given_the_expected_context(model, conditioning, expected, prefix):
    """But for the place of valid tokens, which it does not tell apart."""
    clips = model.conditioner.null() if prefix else conditioning
    given, z_t = {}, expected["noise"][: len(clips)]
    handle = model.denoiser.network.register_forward_pre_hook(
        lambda _m, _a, named: given.update(named), with_kwargs=True
    )
    with torch.no_grad():
        model.denoiser(z_t, torch.ones(len(clips)), clips)
    handle.remove()
    contexts, masks = expected[f"{prefix}context"], expected[f"{prefix}context_mask"].bool()
    ours = zip(given["encoder_hidden_states"], given["encoder_attention_mask"], strict=True)
    for (states, valid), their_states, their_valid in zip(ours, contexts, masks, strict=True):
        assert valid.shape == their_valid.shape
        torch.testing.assert_close(states[valid], their_states[their_valid], **FLOAT32)
    torch.testing.assert_close(
        given["global_hidden_states"], expected["duration_state"].expand(len(clips), -1), **FLOAT32
    )


@pytest.mark.parametrize("num_steps", [4, 8])
def test_noise_levels_are_the_expected_ones_to_the_last_bit(model, expected, num_steps):
    schedule = model.denoiser.schedule
    sigmas = schedule.alpha_sigma(schedule.grid(num_steps))[1]
    assert torch.equal(sigmas, expected[f"sigmas{num_steps}"])
    assert num_steps == 8 or torch.equal(sigmas[:-1], expected["told"])


def test_single_predictions_are_the_expected_ones(model, conditioning, expected):
    """At noise levels of no grid; the times at which float64 sigma is the fixture's."""
    sigma, z_t = expected["sigma"].double(), expected["z"]
    t = time_of(sigma)
    null = model.conditioner.null().repeat(2)
    for clips, name in ((conditioning, "u_text"), (null, "u_null")):
        with torch.no_grad():
            x, eps = model.denoiser(z_t, t, clips)
        u = expected[name]
        torch.testing.assert_close(x, (z_t - sigma[:, None, None] * u).float(), **FLOAT32)
        torch.testing.assert_close(eps, (z_t + (1 - sigma[:, None, None]) * u).float(), **FLOAT32)


def test_without_the_inpainting_input_as_diffusers_samples(model, conditioning, expected):
    """Stability's own sampler gives zeros for it, which the network does not ignore: the model card says so."""
    sigma, z_t = expected["sigma"].double(), expected["z"]
    handle = model.denoiser.network.register_forward_pre_hook(
        lambda _m, args, named: (args, {**named, "local_add_cond": torch.zeros(2, 9, 6)}), with_kwargs=True
    )
    with torch.no_grad():
        x, eps = model.denoiser(z_t, time_of(sigma), conditioning)
    handle.remove()
    torch.testing.assert_close(eps - x, expected["u_text_inpaint_zeros"], **FLOAT32)
    assert (expected["u_text"] - expected["u_text_inpaint_zeros"]).abs().max() > 1


@pytest.mark.parametrize("guidance", ["plain", "guided"])
@pytest.mark.parametrize("num_steps", [4, 8])
def test_whole_runs_are_the_expected_ones(model, conditioning, expected, num_steps, guidance):
    schedule, scale = model.denoiser.schedule, GUIDANCE[guidance]
    null, latents = model.conditioner.null(), expected[f"{num_steps}_{guidance}_z"]
    denoise = predictor(model.denoiser, conditioning, null=null, guidance_scale=scale)
    seen = []

    def watched(z_t, t):
        seen.append(z_t)
        return denoise(z_t, t)

    last = sample(denoise=watched, schedule=schedule, noise=expected["noise"], num_steps=num_steps)
    close_to(torch.stack([*seen, last]), latents)
    branches = Conditioning.cat([null.repeat(2), conditioning])
    times, both = schedule.grid(num_steps)[:-1], guidance == "guided"
    for t, z_t, text, uncond in zip(
        times,
        latents[:-1],
        expected[f"{num_steps}_{guidance}_u{'_text' if both else ''}"],
        expected[f"{num_steps}_guided_u_null"],
        strict=True,
    ):
        with torch.no_grad():
            x, eps = model.denoiser(torch.cat([z_t, z_t]), t.expand(4), branches)
        u_null, u_text = (eps - x).chunk(2)
        close_to(u_text, text)
        if both:
            close_to(u_null, uncond)


@pytest.mark.parametrize("guidance", ["plain", "guided"])
@pytest.mark.parametrize("num_steps", [4, 8])
def test_whole_runs_are_those_of_the_pipeline_here(
    model, folder, captions, conditioning, expected, num_steps, guidance
):
    schedule, scale = model.denoiser.schedule, GUIDANCE[guidance]
    settings = {"num_inference_steps": num_steps, "guidance_scale": scale, "output_type": "latent"}
    theirs = read_pipeline(folder)(captions, duration=SECONDS, latents=expected["noise"], **settings).audios
    denoise = predictor(model.denoiser, conditioning, null=model.conditioner.null(), guidance_scale=scale)
    close_to(sample(denoise=denoise, schedule=schedule, noise=expected["noise"], num_steps=num_steps), theirs)


def test_codec_makes_the_expected_sound_and_latents(model, folder, expected):
    codec, x = model.codec, expected["4_guided_z"][-1][1:]
    close_to(codec.vae.decode(x).sample, expected["decoded"])
    close_to(codec.decode(x), expected["wave"])
    (folder / "provenance.json").write_text(json.dumps({"seconds": 12388.5 / 44100}))
    try:
        codec = load_parts(folder).codec
    finally:
        (folder / "provenance.json").write_text(json.dumps({"seconds": SECONDS}))
    assert codec.num_samples == expected["encode_wave"].shape[-1]
    mean, std = codec.encode(expected["encode_wave"])
    torch.testing.assert_close(mean, expected["latents"], **FLOAT32)
    assert not std.any()
