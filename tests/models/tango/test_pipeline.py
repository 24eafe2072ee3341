"""The pipeline makes what this project's own sampler makes, and does what users of diffusers expect of one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import CAPTIONS, LATENT_SHAPE, NUM_SAMPLES
from tolerances import SAMPLES

from bsa_lightning import TangoPipeline
from bsa_lightning.generation.from_noise import generate_latents
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.tango import pipeline as pipeline_file

NOISE = torch.randn(3, *LATENT_SHAPE, generator=torch.Generator().manual_seed(0))


def open_pipeline(folder):
    pipeline = TangoPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def teacher(teacher_folder):
    return load_parts(teacher_folder)


@pytest.fixture(scope="module")
def pipeline(teacher, teacher_folder, tmp_path_factory):
    """Of the folder with the scheduler that this project writes."""
    pipeline = open_pipeline(teacher_folder)
    teacher.denoiser.save(folder := tmp_path_factory.mktemp("scheduler"))
    pipeline.scheduler = type(pipeline.scheduler).from_pretrained(folder / "scheduler")
    return pipeline


@torch.no_grad()
@pytest.mark.parametrize(("scale", "num_steps"), [(None, None), (1.0, 4), (3.0, 2)])
def test_latents_equal_ours(pipeline, teacher, scale, num_steps):
    settings = {"guidance_scale": scale, "num_inference_steps": num_steps}
    latents = pipeline(CAPTIONS, latents=NOISE, output_type="latent", **settings).audios
    expected = generate_latents(
        denoiser=teacher.denoiser,
        conditioning=teacher.conditioner(CAPTIONS),
        null=teacher.conditioner.null(),
        guidance_scale=2.0 if scale is None else scale,
        num_steps=num_steps or 8,
        noise=NOISE,
    )
    torch.testing.assert_close(latents, expected, **SAMPLES)


def test_sound_is_what_the_codec_makes_of_the_latents(pipeline, teacher):
    """Compared from the same latents: with random weights Griffin-Lim is chaotic."""
    latents = pipeline(CAPTIONS, latents=NOISE, num_inference_steps=2, output_type="latent").audios
    audios = pipeline(CAPTIONS, latents=NOISE, num_inference_steps=2, output_type="pt").audios
    assert audios.shape == (3, NUM_SAMPLES)
    assert torch.equal(audios, teacher.codec.decode(latents))


def test_clips_of_a_caption_follow_one_another(pipeline):
    several = pipeline(CAPTIONS[:2], num_waveforms_per_prompt=2, latents=NOISE[[0, 1, 0, 1]], output_type="latent")
    each = [
        pipeline(caption, latents=NOISE[i : i + 1], output_type="latent") for caption in CAPTIONS[:2] for i in (0, 1)
    ]
    torch.testing.assert_close(several.audios, torch.cat([one.audios for one in each]), **SAMPLES)


@pytest.mark.parametrize("seconds", [0.1, 0.32, 0.5])
def test_length_in_seconds(pipeline, seconds):
    assert pipeline("rain", audio_length_in_s=seconds, num_inference_steps=1).audios.shape == (
        1,
        round(seconds * 16_000),
    )


def test_generators_decide_the_noise(pipeline):
    def latents(*seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipeline(["rain"] * len(seeds), generator=generators, num_inference_steps=1, output_type="latent").audios

    both = latents(1, 2)
    torch.testing.assert_close(both[1], latents(2)[0], **SAMPLES)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_negative_prompt_replaces_the_null(pipeline):
    settings = {"latents": NOISE[:1], "num_inference_steps": 2, "output_type": "latent"}
    plain = pipeline("rain", **settings).audios
    torch.testing.assert_close(pipeline("rain", negative_prompt="", **settings).audios, plain, **SAMPLES)
    away = pipeline("rain", negative_prompt="a dog barks", **settings).audios
    assert (away - plain).abs().max() > 1e-3
    listed = pipeline("rain", negative_prompt=["a dog barks"], **settings).audios
    torch.testing.assert_close(listed, away, **SAMPLES)


def test_callback_sees_and_changes_latents(pipeline):
    seen = []

    def on_step(_pipeline, step, timestep, tensors):
        seen.append((step, int(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    final = pipeline("rain", num_inference_steps=2, output_type="latent", callback_on_step_end=on_step).audios
    assert seen == [(0, 63), (1, 31)]
    assert not final.any()


def test_an_encoder_that_is_moved_when_it_is_called_is_followed(pipeline, monkeypatch):
    """As offloading does: the encoder's device before its first call is not that of its outcome."""
    monkeypatch.setattr(type(pipeline), "_execution_device", torch.device("meta"))
    found = pipeline._encode(["rain"], None, 1, outside=True)
    assert {tensor.device.type for tensor in found} == {"meta"}


@pytest.mark.parametrize(
    ("guidance", "message"), [("inside", 'guidance is "inside", but must be'), ("embedded", "the network has no input")]
)
def test_a_guidance_that_the_network_does_not_have_is_refused(pipeline, guidance, message):
    with pytest.raises(ValueError, match=message):
        TangoPipeline(**pipeline.components, guidance=guidance)


def test_tuples_and_folders_go_round(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    assert (tmp_path / "pipeline.py").read_text() == Path(pipeline_file.__file__).read_text()
    again = open_pipeline(tmp_path)
    names = ("num_inference_steps", "guidance", "guidance_scale", "guidance_range")
    assert [again.config[name] for name in names] == [pipeline.config[name] for name in names]
    (audio,) = again("rain", latents=NOISE[:1], return_dict=False)
    np.testing.assert_array_equal(audio, pipeline("rain", latents=NOISE[:1]).audios)
    assert audio.dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": []}, "prompt is empty"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_waveforms_per_prompt": 0}, "num_waveforms_per_prompt 0"),
        ({"output_type": "pil"}, 'output_type is "pil"'),
        ({"audio_length_in_s": -1.0}, r"audio_length_in_s is -1\.0"),
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
