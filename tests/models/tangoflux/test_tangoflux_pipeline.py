"""The pipeline makes what this project's own sampler makes, and does what users of diffusers expect of one."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import tangoflux_checkpoint
import torch
from tangoflux_checkpoint import LATENT_SHAPE, NUM_SAMPLES
from tiny_model import CAPTIONS
from tolerances import SAMPLES

from bsa_lightning.generation.from_noise import generate_latents
from bsa_lightning.models.flow_scheduler import flow_scheduler
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.tangoflux import caption_projection
from bsa_lightning.models.tangoflux import tangoflux_pipeline as pipeline_file
from bsa_lightning.models.tangoflux.tangoflux_pipeline import TangoFluxPipeline

NOISE = torch.randn(3, *LATENT_SHAPE, generator=torch.Generator().manual_seed(0))
LATENT = {"output_type": "latent", "num_inference_steps": 2}


@pytest.fixture(scope="module")
def teacher(teacher_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tangoflux")
    return load_parts(tangoflux_checkpoint.write_model(folder, text_folder=teacher_folder))


@pytest.fixture(scope="module")
def pipeline(teacher):
    from diffusers import FluxTransformer2DModel

    pipeline = TangoFluxPipeline(
        vae=teacher.codec.vae,
        text_encoder=teacher.conditioner.encoder,
        tokenizer=teacher.conditioner.tokenizer,
        projection=teacher.conditioner.projection,
        transformer=FluxTransformer2DModel.from_pretrained(teacher.folder / "transformer"),
        scheduler=flow_scheduler(num_train_timesteps=1000),
        num_inference_steps=3,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ours(teacher, captions, noise, scale, num_steps):
    return generate_latents(
        denoiser=teacher.denoiser,
        conditioning=teacher.conditioner(captions),
        null=teacher.conditioner.null(),
        guidance_scale=scale,
        num_steps=num_steps,
        noise=noise,
    )


@torch.no_grad()
@pytest.mark.parametrize(("scale", "num_steps"), [(None, None), (1.0, 5), (0.0, 1), (3.0, 7)])
def test_latents_equal_ours(pipeline, teacher, scale, num_steps):
    """Without guidance too, where the original stops with an error; and at a number that does not divide 1000."""
    settings = {"guidance_scale": scale, "num_inference_steps": num_steps}
    latents = pipeline(CAPTIONS, latents=NOISE, output_type="latent", **settings).audios
    expected = ours(teacher, CAPTIONS, NOISE, 4.5 if scale is None else scale, num_steps or 3)
    torch.testing.assert_close(latents, expected, **SAMPLES)


def test_sound_is_what_the_codec_makes_of_the_latents(pipeline, teacher):
    latents = pipeline(CAPTIONS, latents=NOISE, **LATENT).audios
    audios = pipeline(CAPTIONS, latents=NOISE, num_inference_steps=2, output_type="pt").audios
    assert audios.shape == (3, 2, NUM_SAMPLES)
    assert torch.equal(audios, teacher.codec.decode(latents))


def test_clips_of_a_caption_follow_one_another(pipeline):
    several = pipeline(CAPTIONS[:2], num_waveforms_per_prompt=2, latents=NOISE[[0, 1, 0, 1]], **LATENT)
    each = [pipeline(caption, latents=NOISE[i : i + 1], **LATENT) for caption in CAPTIONS[:2] for i in (0, 1)]
    torch.testing.assert_close(several.audios, torch.cat([one.audios for one in each]), **SAMPLES)


def test_a_length_is_told_to_the_network_and_cut_to(pipeline):
    seconds = NUM_SAMPLES / 44_100 / 2
    cut = pipeline("rain", latents=NOISE[:1], audio_length_in_s=seconds, num_inference_steps=2).audios
    assert cut.shape == (1, 2, NUM_SAMPLES // 2)
    whole = pipeline("rain", latents=NOISE[:1], num_inference_steps=2).audios
    assert np.abs(whole[..., : NUM_SAMPLES // 2] - cut).max() > 1e-4
    default = TangoFluxPipeline(**pipeline.components, num_inference_steps=2, seconds=seconds)
    default.set_progress_bar_config(disable=True)
    np.testing.assert_array_equal(default("rain", latents=NOISE[:1]).audios, cut)


def test_generators_decide_the_noise(pipeline):
    def latents(*seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipeline(["rain"] * len(seeds), generator=generators, **LATENT).audios

    both = latents(1, 2)
    torch.testing.assert_close(both[1], latents(2)[0], **SAMPLES)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_negative_prompt_replaces_the_null(pipeline):
    settings = {"latents": NOISE[:1], **LATENT}
    plain = pipeline("rain", **settings).audios
    torch.testing.assert_close(pipeline("rain", negative_prompt="", **settings).audios, plain, **SAMPLES)
    away = pipeline("rain", negative_prompt=CAPTIONS[2], **settings).audios
    assert (away - plain).abs().max() > 1e-3
    torch.testing.assert_close(pipeline("rain", negative_prompt=[CAPTIONS[2]], **settings).audios, away, **SAMPLES)
    batch = pipeline(["rain", CAPTIONS[0]], negative_prompt=[CAPTIONS[2], ""], latents=NOISE[[0, 1]], **LATENT).audios
    torch.testing.assert_close(batch[:1], away, **SAMPLES)
    other = pipeline(CAPTIONS[0], latents=NOISE[1:2], **LATENT).audios
    torch.testing.assert_close(batch[1:], other, **SAMPLES)


def test_callback_sees_and_changes_latents(pipeline):
    seen = []

    def on_step(_pipeline, step, timestep, tensors):
        seen.append((step, float(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    assert not pipeline("rain", callback_on_step_end=on_step, **LATENT).audios.any()
    assert seen == [(0, 1000.0), (1, 500.0)]


def test_an_encoder_that_is_moved_when_it_is_called_is_followed(pipeline, monkeypatch):
    """As offloading does: the encoder's device before its first call is not that of its outcome."""
    monkeypatch.setattr(type(pipeline), "_execution_device", torch.device("meta"))
    monkeypatch.setattr(pipeline, "projection", copy.deepcopy(pipeline.projection).to("meta"))
    inputs = pipeline._text_inputs(["rain"], "", 1, 1.0)
    assert {inputs[name].device.type for name in ("encoder_hidden_states", "pooled_projections")} == {"meta"}


@pytest.mark.parametrize(
    ("guidance", "message"), [("inside", 'guidance is "inside", but must be'), ("embedded", "the network has no input")]
)
def test_a_guidance_that_the_network_does_not_have_is_refused(pipeline, guidance, message):
    with pytest.raises(ValueError, match=message):
        TangoFluxPipeline(**pipeline.components, guidance=guidance)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": []}, "prompt is empty"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_waveforms_per_prompt": 0}, "num_waveforms_per_prompt 0"),
        ({"output_type": "pil"}, 'output_type is "pil"'),
        ({"audio_length_in_s": -1.0}, r"audio_length_in_s is -1\.0"),
        ({"audio_length_in_s": 30.0}, r"audio_length_in_s is 30\.0, but must be above 0 and at most 0\.0029"),
        ({"guidance_scale": -1.0}, r"guidance scale is -1\.0"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt has 2 entries, but prompt has 1"),
        ({"latents": NOISE}, r"latents are of shape \(3, .* but must be \(1,"),
        ({"generator": []}, "a list of 0, but there are 1 clips"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "names noise; only latents"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(pipeline, settings, message):
    with pytest.raises(ValueError, match=message):
        pipeline(**{"prompt": "rain"} | settings)


@pytest.mark.parametrize(("guidance", "message"), [("baked", "has 4.5 baked in"), ("outside", "from 2 to 3")])
def test_a_scale_that_the_model_does_not_have_is_refused(pipeline, guidance, message):
    other = TangoFluxPipeline(**pipeline.components, guidance=guidance, guidance_range=(2, 3))
    with pytest.raises(ValueError, match=message):
        other("rain", guidance_scale=7.0)


def test_a_saved_folder_carries_both_files_and_names_them(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    for file, part in ((pipeline_file, "."), (caption_projection, "projection")):
        name = Path(file.__file__).name
        assert (tmp_path / part / name).read_text() == Path(file.__file__).read_text()
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["projection"] == ["caption_projection", "CaptionProjection"]
    assert (index["num_inference_steps"], index["guidance"], index["seconds"]) == (3, "outside", None)
