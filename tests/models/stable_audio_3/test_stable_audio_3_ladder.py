"""From prepared sound to a student that diffusers' own pipeline samples, on the grid that it was trained on."""

import functools
import json
import shutil
from pathlib import Path

import pytest
import soundfile
import stable_audio_3_model
import torch
from ladder import StopAt, data_of, module_of, trainer_of
from stable_audio_3_model import LATENT_SHAPE, NUM_SAMPLES, SAMPLE_RATE, SECONDS
from tolerances import SAMPLES
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.distillation.cost import sampling_flops
from bsa_lightning.distillation.export import export_student
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.generation.from_noise import generate
from bsa_lightning.generation.wav_writer import WavWriter
from bsa_lightning.models.loading import load_denoiser, load_parts, without_weights
from bsa_lightning.models.lora import LoRA

HALF = {"rtol": 1e-3, "atol": 1e-3}
"""What float16 storage rounds away."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nobody writes to it."""
    return stable_audio_3_model.write_model(tmp_path_factory.mktemp("stable-audio-3"))


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("stable-audio-3-latents") / "store"
    prepare_folder(ToyClips(24), path, str(folder), batch_size=4, shard_size=24)
    return path


def test_a_stored_clip_is_both_channels_of_its_sound_and_its_valid_states(store, folder):
    stored_clip, clips, teacher = LatentReader(store)[3], ToyClips(24), load_parts(folder)
    waveform = clips.waveform(3, sample_rate=SAMPLE_RATE, num_samples=NUM_SAMPLES, num_channels=2)
    mean, std = teacher.codec.encode(waveform[None])
    torch.testing.assert_close(stored_clip.mean, mean[0], **HALF)
    torch.testing.assert_close(stored_clip.std, std[0], **HALF)
    conditioning = teacher.conditioner(clips.captions(3)).split()
    for ours, stored in zip(conditioning, stored_clip.conditioning, strict=True):
        assert ours.tensors["states"].shape[1] > 0
        torch.testing.assert_close(stored.tensors, ours.tensors, **HALF)


class Silent(ToyClips):
    """Clips with empty captions, which have no token."""

    def captions(self, index):
        return [""]


def test_a_caption_without_a_token_is_stored(folder, tmp_path):
    prepare_folder(Silent(4), tmp_path / "store", str(folder), batch_size=4, shard_size=4)
    (conditioning,) = LatentReader(tmp_path / "store")[2].conditioning
    assert conditioning.tensors["states"].shape == (1, 0, stable_audio_3_model.WIDTH)
    torch.testing.assert_close(conditioning.tensors, load_parts(folder).conditioner.null().tensors, **HALF)


@pytest.fixture(scope="module")
def runs(folder, store, tmp_path_factory):
    """Two rounds with guidance baked in, and two with guidance outside."""
    found = {}
    for guidance in (Baked(2.0), Outside(2.0)):
        found[guidance.name] = run = tmp_path_factory.mktemp(guidance.name)
        trainer_of(run).fit(module_of(folder, guidance=guidance), data_of(store))
    return found


def test_a_student_has_moved_and_makes_stereo(folder, runs, tmp_path):
    student = runs["baked"] / "rounds" / "2-2steps"
    first, last = (load_denoiser(path).transformer.proj_in.weight for path in (folder, student))
    assert not torch.equal(first, last)
    (path,) = WavWriter(str(student)).write(tmp_path, ["rain"], [0])
    info = soundfile.info(path)
    assert (info.channels, info.frames, info.samplerate) == (2, NUM_SAMPLES, SAMPLE_RATE)


def test_a_lora_run_goes_on_after_a_death(folder, store, tmp_path):
    """Its network has a persistent buffer, which a checkpoint takes from the teacher's folder like the weights."""
    module = functools.partial(module_of, folder, adapter=LoRA(1), plan=Plan(8, 4, 3))
    trainer_of(tmp_path / "whole").fit(module(), data_of(store))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer_of(tmp_path / "dead", StopAt(2)).fit(module(), data_of(store))
    last = tmp_path / "dead" / "checkpoints" / "last.ckpt"
    trainer_of(tmp_path / "dead").fit(module(), data_of(store), ckpt_path=last, weights_only=True)
    file = Path("rounds", "1-4steps", "transformer", "diffusion_pytorch_model.safetensors")
    assert (tmp_path / "dead" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_embedded_guidance_is_refused_before_anything_is_trained(folder):
    with pytest.raises(UserError, match=r"guidance is Embedded, but .* no input for a scale; use Baked or Outside"):
        module_of(folder, guidance=Embedded(2.0))


@pytest.fixture
def exported(request, runs, tmp_path):
    """The last student's network and scheduler in a copy of the teacher's folder."""
    export_student(runs[request.param] / "rounds" / "2-2steps", tmp_path / "exported")
    return tmp_path / "exported"


@pytest.mark.parametrize("exported", ["baked", "outside"], indirect=True)
def test_diffusers_own_pipeline_samples_a_student_as_we_do(exported):
    noise, captions = torch.randn(2, *LATENT_SHAPE), ["rain", "a dog barks"]
    model, pipeline = load_parts(exported), stable_audio_3_model.read_pipeline(exported)
    settings = {"num_inference_steps": model.sampling.num_steps, "guidance_scale": model.sampling.scale()}
    theirs = pipeline(captions, duration=SECONDS, latents=noise, **settings).audios
    ours = generate(
        denoiser=model.denoiser,
        codec=model.codec,
        conditioning=model.conditioner(captions),
        null=model.conditioner.null(),
        guidance_scale=model.sampling.scale(),
        num_steps=2,
        noise=noise,
    )
    torch.testing.assert_close(ours, theirs, **SAMPLES)


@pytest.mark.parametrize("exported", ["baked"], indirect=True)
def test_the_card_says_how_to_open_it(exported):
    card = (exported / "README.md").read_text()
    assert 'StableAudio3Pipeline.from_pretrained("path/to/this/folder")' in card
    assert 'pipeline("A dog barks", num_inference_steps=2, guidance_scale=1.0)' in card
    assert "gives zeros for the input of inpainting" in card
    assert "Stability AI Community License" in card


def test_the_length_of_clips_is_carried_and_on_the_card(folder, store, tmp_path):
    teacher = tmp_path / "teacher"
    shutil.copytree(folder, teacher)
    (teacher / "provenance.json").write_text(json.dumps({"seconds": SECONDS, "licence": "stability"}))
    trainer_of(tmp_path / "run").fit(module_of(teacher, plan=Plan(8, 4, 1)), data_of(store))
    export_student(tmp_path / "run" / "rounds" / "1-4steps", tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    assert f"num_inference_steps=4, guidance_scale=1.0, duration={SECONDS})" in card
    assert load_parts(tmp_path / "exported").codec.num_samples == NUM_SAMPLES


def test_a_scale_that_the_pipeline_leaves_out_is_not_exported(folder, store, tmp_path):
    trainer_of(tmp_path / "run").fit(module_of(folder, guidance=Outside(0.5), plan=Plan(8, 4, 1)), data_of(store))
    with pytest.raises(UserError, match=r"guidance_scale is 0.5, but StableAudio3Pipeline applies no scale below 1"):
        export_student(tmp_path / "run" / "rounds" / "1-4steps", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_another_familys_latents_are_refused(folder, latents_folder, tmp_path):
    with pytest.raises(UserError, match=r"(?s)latents|prepare") as caught:
        trainer_of(tmp_path / "run").fit(module_of(folder), data_of(latents_folder))
    assert "\n" not in str(caught.value)


def test_a_round_is_trained_at_the_times_that_the_pipeline_samples(folder, store, tmp_path):
    """A student of 2 steps is told two noise levels, those of the pipeline's run of two steps, and no other."""
    module = module_of(folder, guidance=Baked(1.0))
    told = set()
    module.student.network.register_forward_hook(lambda _m, args, _o: told.update(args[1].tolist()))
    trainer_of(tmp_path / "run").fit(module, data_of(store))
    schedule = module.teacher.schedule
    levels = {n: schedule.alpha_sigma(schedule.grid(n)[:-1])[1].tolist() for n in (4, 2)}
    assert told == {*levels[4], *levels[2]}


def test_a_network_without_weights_has_the_shapes_of_the_real_one(folder):
    real = load_denoiser(folder)
    with without_weights():
        planned = load_denoiser(folder)
    assert [p.shape for p in planned.parameters()] == [p.shape for p in real.parameters()]
    z_t, conditioning = real.example_inputs(2)
    assert real(z_t, torch.ones(2), conditioning).x.shape == (2, *LATENT_SHAPE)
    matrices = sum(p.numel() for p in real.parameters() if p.ndim > 1)
    # Each weight multiplies a token of its own sequence: sound, or text, or the one of time and duration.
    assert 2 * matrices < sampling_flops(planned) < 2 * matrices * 257
