"""From prepared sound to a student that diffusers' own pipeline samples."""

import math

import pytest
import soundfile
import stable_audio_model
import torch
from ladder import data_of, module_of, trainer_of
from stable_audio_model import LATENT_SHAPE, NUM_SAMPLES, SAMPLE_RATE
from tolerances import SAMPLES
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.distillation.cost import sampling_flops
from bsa_lightning.distillation.export import export_student
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.evaluation.scores import ScoreFile
from bsa_lightning.evaluation.scoring import Scoring
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.generation.from_noise import generate
from bsa_lightning.generation.wav_writer import WavWriter
from bsa_lightning.models.loading import load_denoiser, load_parts, without_weights

HALF = {"rtol": 1e-3, "atol": 1e-3}
"""What float16 storage rounds away."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, teacher_folder):
    """Nobody writes to it."""
    return stable_audio_model.write_model(tmp_path_factory.mktemp("stable-audio"), teacher_folder)


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("stable-audio-latents") / "store"
    prepare_folder(ToyClips(24), path, str(folder), batch_size=4, shard_size=24)
    return path


def test_a_stored_clip_is_both_channels_of_its_sound(store, folder):
    stored_clip, clips, teacher = LatentReader(store)[3], ToyClips(24), load_parts(folder)
    waveform = clips.waveform(3, sample_rate=SAMPLE_RATE, num_samples=NUM_SAMPLES, num_channels=2)
    mean, std = teacher.codec.encode(waveform[None])
    torch.testing.assert_close(stored_clip.mean, mean[0], **HALF)
    torch.testing.assert_close(stored_clip.std, std[0], **HALF)
    conditioning = teacher.conditioner(clips.captions(3)).split()
    for ours, stored in zip(conditioning, stored_clip.conditioning, strict=True):
        torch.testing.assert_close(stored.tensors, ours.tensors, **HALF)


@pytest.fixture(scope="module")
def runs(folder, store, tmp_path_factory):
    """Two rounds with guidance baked in, scored, and two with guidance outside."""
    found = {}
    for guidance in (Baked(2.0), Outside(2.0)):
        found[guidance.name] = run = tmp_path_factory.mktemp(guidance.name)
        scoring = Scoring(ScoringSettings(ToyClips(4), num_captions=2, seeds=[0], batch_size=2, num_samples=1))
        trainer_of(run, scoring).fit(module_of(folder, guidance=guidance), data_of(store))
    return found


@pytest.mark.parametrize(("mode", "nfe"), [("baked", ["4", "2"]), ("outside", ["8", "4"])])
def test_a_ladder_trains_scores_and_writes_stereo(runs, mode, nfe):
    rows = [row for row in ScoreFile(runs[mode] / "scores.csv").rows() if row["model"] == "student"]
    assert [row["nfe"] for row in rows] == nfe
    assert all(math.isfinite(float(row["fd_logmel"])) for row in rows)
    for system in ("reference", "student-bsa-2steps"):
        info = soundfile.info(runs[mode] / "samples" / system / "00-a-dog-barks.wav")
        assert (info.channels, info.frames, info.samplerate) == (2, NUM_SAMPLES, SAMPLE_RATE)


def test_a_student_has_moved_and_makes_stereo(folder, runs, tmp_path):
    student = runs["baked"] / "rounds" / "2-2steps"
    first, last = (load_denoiser(path).transformer.proj_in.weight for path in (folder, student))
    assert not torch.equal(first, last)
    (path,) = WavWriter(str(student)).write(tmp_path, ["rain"], [0])
    assert soundfile.read(path)[0].shape == (NUM_SAMPLES, 2)


def test_embedded_guidance_is_refused_before_anything_is_trained(folder):
    with pytest.raises(UserError, match=r"guidance is Embedded, but .* no input for a scale; use Baked or Outside"):
        module_of(folder, guidance=Embedded(2.0))


@pytest.fixture
def exported(runs, tmp_path):
    """The last student's network and scheduler in a copy of the teacher's folder."""
    export_student(runs["baked"] / "rounds" / "2-2steps", tmp_path / "exported")
    return tmp_path / "exported"


def ours_of(exported, noise, guidance_scale):
    model = load_parts(exported)
    return generate(
        denoiser=model.denoiser,
        codec=model.codec,
        conditioning=model.conditioner(["rain", "a dog barks"]),
        null=model.conditioner.null(),
        guidance_scale=guidance_scale,
        num_steps=2,
        noise=noise,
    )


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_diffusers_own_pipeline_samples_a_student_as_we_do(exported, guidance_scale, monkeypatch, tmp_path):
    """With nothing of this package but the scheduler's file, which the folder carries."""
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    noise = torch.randn(2, *LATENT_SHAPE)
    pipeline = stable_audio_model.read_pipeline(exported, trust_remote_code=True)
    assert not type(pipeline.scheduler).__module__.startswith("bsa_lightning")
    settings = {"num_inference_steps": 2, "guidance_scale": guidance_scale, "latents": noise, "output_type": "pt"}
    theirs = pipeline(["rain", "a dog barks"], **settings).audios
    torch.testing.assert_close(ours_of(exported, noise, guidance_scale), theirs.clamp(-1, 1), **SAMPLES)


def test_the_card_says_how_to_open_it(exported):
    card = (exported / "README.md").read_text()
    assert 'StableAudioPipeline.from_pretrained("path/to/this/folder", trust_remote_code=True)' in card
    assert "num_inference_steps=2, guidance_scale=1.0" in card


def test_a_network_without_weights_has_the_shapes_of_the_real_one(folder):
    real = load_denoiser(folder)
    with without_weights():
        planned = load_denoiser(folder)
    assert [p.shape for p in planned.parameters()] == [p.shape for p in real.parameters()]
    z_t, conditioning = real.example_inputs(2)
    assert real(z_t, torch.ones(2), conditioning).x.shape == (2, *LATENT_SHAPE)
    matrices = sum(p.numel() for p in real.parameters() if p.ndim > 1)
    # Each weight multiplies a token of its own sequence: sound and time, or text, or the one of durations.
    assert 2 * matrices < sampling_flops(planned) < 2 * matrices * 130
