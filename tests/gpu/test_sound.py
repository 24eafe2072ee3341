"""Preparing, sampling and scoring on the device, as on the CPU."""

import csv

import pytest
import torch
from ladder import data_of, module_of, trainer_of
from places import trainer_on
from tolerances import DEVICES, SAMPLES
from toy_clips import ToyClips

from bsa_lightning.data import prepare
from bsa_lightning.data.datamodule import AudioCapsLatents, Prepared
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.embeddings.soundscape_listener import SoundscapeListener
from bsa_lightning.evaluation.scoring import Scoring
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.generation.text_to_audio import TextToAudio


def batches(folder):
    data = AudioCapsLatents(Prepared(str(folder)), batch_size=5)
    data.setup("fit")
    return list(data.train_dataloader())


def test_a_store_prepared_here_is_that_of_the_cpu(device, teacher_folder, tmp_path, monkeypatch):
    if device.type != "cuda":
        monkeypatch.setattr(prepare, "_accelerator", lambda accelerator, _: accelerator)
    folders = tmp_path / "there", tmp_path / "here"
    for folder, place in zip(folders, (device.type, "cpu"), strict=True):
        prepare_folder(ToyClips(10), folder, str(teacher_folder), batch_size=4, accelerator=place)
    for there, here in zip(*map(batches, folders), strict=True):
        torch.testing.assert_close(there.posterior.mean, here.posterior.mean, **DEVICES)
        torch.testing.assert_close(there.posterior.std, here.posterior.std, **DEVICES)
        torch.testing.assert_close(there.conditioning.tensors, here.conditioning.tensors, **DEVICES)


def test_the_built_in_teacher_sounds_as_on_the_cpu(device):
    sounds = TextToAudio("tiny")
    here = sounds("A low hum", num_steps=4, seed=3).audios
    there = sounds.to(device)("A low hum", num_steps=4, seed=3).audios
    assert abs(here).max() > 0.01
    # Griffin-Lim's phases amplify rounding; levels over time do not depend on it.
    levels = [torch.from_numpy(audio).unfold(-1, 1024, 1024).square().mean(-1).sqrt() for audio in (there, here)]
    torch.testing.assert_close(*levels, rtol=0.05, atol=5e-3)


@pytest.mark.parametrize("embedding", [LogMelStatistics, SoundscapeListener])
def test_an_embedding_hears_as_on_the_cpu(embedding, device):
    ear = embedding()
    waves = torch.stack([
        Soundscapes(4, seed=5).waveform(i, sample_rate=16_000, num_samples=40_960) for i in range(4)
    ])  # fmt: skip
    with torch.no_grad():
        here, there = ear(waves), ear.to(device)(waves.to(device))
    torch.testing.assert_close(there.rows.cpu().float(), here.rows.float(), **DEVICES)


def rows_of(run):
    with (run / "scores.csv").open() as file:
        return {(row["model"], row["num_steps"], row["nfe"]): row for row in csv.DictReader(file)}


def test_scores_are_those_of_the_cpu(device, teacher_folder, latents_folder, tmp_path):
    """One student, scored on both."""
    found = []
    for name, place in (("here", "cpu"), ("there", device.type)):
        run = tmp_path / name
        run.mkdir()
        clips, cache = ToyClips(24), tmp_path / f"{name}-cache"
        scoring = Scoring(ScoringSettings(clips, num_captions=12, batch_size=6, cache=cache))
        trainer = trainer_of(run, scoring, **trainer_on(place))
        trainer.fit(module_of(teacher_folder), data_of(latents_folder))
        found.append(rows_of(run))
    here, there = found
    assert here.keys() == there.keys()
    for system, row in here.items():
        if row["trajectory_error"]:
            assert float(there[system]["trajectory_error"]) == pytest.approx(float(row["trajectory_error"]), rel=0.05)
        assert there[system]["nfe"] == row["nfe"]


def test_latents_sampled_here_are_those_of_the_cpu(device, teacher_folder):
    from bsa_lightning.diffusion.ddim import sample
    from bsa_lightning.models.loading import load_parts
    from bsa_lightning.models.predictor import predictor

    model = load_parts(teacher_folder)
    noise = torch.randn(3, *model.codec.latent_shape, generator=torch.Generator().manual_seed(0))
    told, null = model.conditioner(["rain", "a dog barks", "rain"]), model.conditioner.null()
    ends = []
    for place in ("cpu", device):
        denoiser = model.denoiser.to(place)
        denoise = predictor(denoiser, told.to(place), null=null.to(place), guidance_scale=2.0)
        ends.append(sample(denoise=denoise, schedule=denoiser.schedule, noise=noise.to(place), num_steps=8).cpu())
    torch.testing.assert_close(*ends, **SAMPLES)
