"""What is generated and compared, outside of a run."""

from dataclasses import replace

import pytest
import torch
from toy_clips import ToyClips

from bsa_lightning.data.order import seeded
from bsa_lightning.evaluation.embeddings.base import Embedding, Features
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.embeddings.reading import AsPublishedTango, Plain
from bsa_lightning.evaluation.evaluator import Evaluator, Process
from bsa_lightning.evaluation.metrics.divergence import clap_score
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.evaluation.systems import teacher_system
from bsa_lightning.generation.from_noise import noise_of
from bsa_lightning.models.loading import load_parts


class Words(Embedding):
    """A classifier that reads captions."""

    name, metric, fingerprint, caption_metric = "words", "fd_words", "words-1", "words_score"
    sample_rate, num_features = 16_000, 4

    def forward(self, waveform):
        sections = waveform[:, :5120].unflatten(1, (5, 4, 256)).square().mean(3)
        return Features(sections, sections.mean(2))

    def text(self, captions):
        return torch.stack([torch.randn(4, generator=seeded(len(caption))) for caption in captions])

    def judge(self, rows, captions):
        return clap_score(rows, captions)


class Recorded(ToyClips):
    """Stereo recordings at 32 kHz, each of its own length, softer than what training makes of them."""

    missing = ("gone",)

    def recorded(self, i):
        return self.waveform(i, sample_rate=32_000, num_samples=40_000 + 3000 * i, num_channels=2) / 3, 32_000


class Lengths(Embedding):
    """Says how long a clip is, how loud, and how loud without its mean."""

    name, metric, fingerprint = "lengths", "fd_lengths", "lengths-1"
    sample_rate, num_features = 16_000, 3

    def forward(self, waveform):
        size = torch.full((len(waveform), 1, 1), waveform.shape[1] / 1e4)
        level = waveform.square().mean(1)[:, None, None]
        return Features(torch.cat([size, level, waveform.mean(1)[:, None, None]], dim=2))


def teacher_of(folder):
    return {"teacher": load_parts(folder), "full_teacher": teacher_system(folder, num_steps=2, guidance_scale=2.0)}


@pytest.mark.parametrize("reading", [Plain(), AsPublishedTango()])
def test_a_reference_of_recordings_is_heard_as_its_reading_says(teacher_folder, tmp_path, reading):
    clips, embedding = Recorded(12), Lengths(reading)
    settings = ScoringSettings(clips, batch_size=5, embeddings=[embedding], cache=tmp_path)
    evaluator = Evaluator(settings, **teacher_of(teacher_folder))
    found = evaluator.measures[0].reference
    for i in range(12):
        heard = reading(clips.recorded(i)[0][None], rate=32_000, sample_rate=16_000)
        torch.testing.assert_close(found.rows[i].float(), embedding(heard).rows[0, 0], rtol=0, atol=0)
    assert found.rows[:, 0].unique().numel() > 1


def test_rows_of_the_reference_and_of_undistilled_models_are_kept(teacher_folder, tmp_path, monkeypatch):
    settings = ScoringSettings(ToyClips(24), num_captions=20, batch_size=7, cache=tmp_path)
    models = teacher_of(teacher_folder)
    full_teacher = models["full_teacher"]
    first = Evaluator(settings, **models).score(full_teacher, seed=0)
    assert len(list((tmp_path / "rows").glob("*.safetensors"))) == 4 + 3  # of 24 clips and of 20, in batches of 7
    distilled = replace(full_teacher, model="student", weighting="bsa")
    fresh = Evaluator(settings, **models).score(distilled, seed=0)
    assert len(list((tmp_path / "rows").glob("*.safetensors"))) == 4 + 3
    assert fresh.metrics["fd_logmel"] == first.metrics["fd_logmel"]
    monkeypatch.setattr(LogMelStatistics, "forward", None)
    monkeypatch.setattr(models["teacher"].codec, "decode", lambda _: sum(None))
    again = Evaluator(settings, **models)
    assert again.score(full_teacher, seed=0) == first
    for asked in ({"seed": 1}, {"seed": 0, "num_decoded": 1}):
        with pytest.raises(TypeError, match="not iterable"):
            again.score(full_teacher, **asked)
    with pytest.raises(TypeError, match="not callable"):
        Evaluator(replace(settings, cache=tmp_path / "other"), **models)


def test_rows_of_another_decoder_are_others(teacher_folder, tmp_path):
    """Of two models with one network, whose latents are shared."""
    settings = ScoringSettings(ToyClips(24), num_captions=20, batch_size=7, cache=tmp_path)
    models = teacher_of(teacher_folder)
    first = Evaluator(settings, **models).score(models["full_teacher"], seed=0)
    with torch.no_grad():
        for weights in models["teacher"].codec.parameters():
            weights.mul_(1.5)
    second = Evaluator(settings, **models).score(models["full_teacher"], seed=0)
    assert second.metrics["fd_logmel"] != first.metrics["fd_logmel"]


def test_every_embedding_adds_its_columns(teacher_folder, tmp_path):
    embeddings = [LogMelStatistics(), Words()]
    settings = ScoringSettings(ToyClips(40), batch_size=8, embeddings=embeddings, at_infinity=True, cache=tmp_path)
    models = teacher_of(teacher_folder)
    score = Evaluator(settings, **models).score(models["full_teacher"], seed=0)
    assert list(score.metrics) == [
        "fd_logmel", "kad_logmel", "fd_words", "kad_words", "kl_words",
        "kl_sigmoid_words", "is_words", "words_score", "fd_words_inf", "fd_words_inf_r2",
        "trajectory_error", "seconds_per_clip",
    ]  # fmt: skip
    few = Evaluator(replace(settings, num_captions=9), **models).score(models["full_teacher"], seed=0)
    assert list(few.metrics)[:2] == ["fd_logmel", "kad_logmel"]
    assert list(few.metrics)[2:5] == ["kl_words", "kl_sigmoid_words", "words_score"]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_do_not_depend_on_batches_or_ranks(teacher_folder, tmp_path, batch_size):
    models = teacher_of(teacher_folder)
    settings = ScoringSettings(ToyClips(6), num_captions=4, batch_size=batch_size, cache=tmp_path)
    latents = []
    for rank in range(2):
        evaluator = Evaluator(settings, **models, process=Process(rank, world_size=2))
        latents.append(torch.cat(evaluator._sample(models["full_teacher"], 7).latents))
    settings = replace(settings, batch_size=4, cache=tmp_path / "whole")
    whole = Evaluator(settings, **models)._sample(models["full_teacher"], 7).latents[0]
    torch.testing.assert_close(torch.stack(latents, 1).flatten(0, 1), whole, rtol=0, atol=1e-5)


def test_progress_counts_the_teacher_that_errors_are_measured_from(teacher_folder, tmp_path):
    models = teacher_of(teacher_folder)
    other = replace(models["full_teacher"], num_steps=1)
    evaluator = Evaluator(ScoringSettings(ToyClips(6), num_captions=5, batch_size=2, cache=tmp_path), **models)
    for pairs, num_samplings in (([(other, 0)], 2), ([(other, 0), (models["full_teacher"], 1), (other, 1)], 3)):
        assert evaluator.num_samplings(pairs) == num_samplings
        done = []
        for system, seed in pairs:
            evaluator.score(system, seed=seed, on_batch=done.append)
        assert sum(done) == num_samplings * 5


def test_noise_is_of_the_clip():
    assert torch.equal(noise_of([5, 2], seed=0, shape=(3,))[1], noise_of([2], seed=0, shape=(3,))[0])
    assert not torch.equal(noise_of([2], seed=0, shape=(3,)), noise_of([2], seed=1, shape=(3,)))
