import csv
import json
import math

import pytest
import soundfile
import torch
from ladder import data_of, module_of, trainer_of
from toy_clips import ToyClips

from bsa_lightning.data.order import seeded
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.distillation.guidance import Baked
from bsa_lightning.distillation.plan import Plan
from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.callback import Scoring
from bsa_lightning.evaluation.divergence import clap_score
from bsa_lightning.evaluation.embeddings import Embedding, Features, LogMelStatistics
from bsa_lightning.evaluation.generation import noise_of
from bsa_lightning.evaluation.protocol import Protocol, teacher_system
from bsa_lightning.evaluation.scores import COLUMNS, ScoreFile
from bsa_lightning.teachers.folder import folder_sha256, load_teacher


@pytest.fixture(scope="module")
def run(teacher_folder, latents_folder, tmp_path_factory):
    """A finished and tested run."""
    run = tmp_path_factory.mktemp("study") / "run"
    run.mkdir()
    settings = {"num_captions": 20, "seeds": [0, 1], "batch_size": 7, "num_samples": 2}
    scoring = Scoring(ToyClips(24), **settings, cache=run.parent / "cache")
    trainer_of(run, scoring).fit(module_of(teacher_folder), data_of(latents_folder))
    during = ScoreFile(run / "scores.csv").rows()
    trainer_of(run, scoring).test(module_of(teacher_folder), data_of(latents_folder), verbose=False)
    return run, during, ScoreFile(run / "scores.csv").rows()


def test_every_round_scores_student_and_teacher_alike(run):
    _, during, _ = run
    found = [(row["model"], row["num_steps"], row["nfe"], row["seed"]) for row in during]
    assert found == [
        ("reference", "0", "0", "0"),
        ("teacher", "4", "8", "0"),
        ("student", "4", "4", "0"),
        ("teacher", "2", "4", "0"),
        ("student", "2", "2", "0"),
    ]


def test_test_adds_the_other_seeds_and_the_full_steps_and_repeats_nothing(run):
    _, during, after = run
    assert after[: len(during)] == during
    assert len(after) == 1 + 5 * 2
    full = [row for row in after if row["num_steps"] == "8"]
    assert {row["trajectory_error"] for row in full} == {"0"}
    assert all(float(row["trajectory_error"]) > 0 for row in after if row["num_steps"] in ("4", "2"))


def test_columns(run):
    _, _, after = run
    names = [name for name in after[0] if name not in COLUMNS]
    assert names == ["fd_logmel", "kad_logmel", "trajectory_error", "seconds_per_clip"]
    assert [name for name in names if after[0][name]] == ["fd_logmel", "kad_logmel"]
    for row in after[1:]:
        assert all(math.isfinite(float(row[name])) for name in names)
        assert 0 < float(row["seconds_per_clip"]) < 10


def test_card_says_what_was_compared_and_how(run, teacher_folder):
    card = json.loads((run[0] / "scores.json").read_text())
    assert card["clips"] == ToyClips(24).fingerprint()
    assert card["teacher"] == folder_sha256(teacher_folder)
    assert card["embeddings"] == {"logmel": LogMelStatistics.fingerprint}
    expected = {"num_reference": 24, "num_captions": 20, "seeds": [0, 1], "guidance_scale": 2.0, "grid": "trailing"}
    assert {name: card[name] for name in expected} == expected
    assert torch.__version__.startswith(card["versions"]["torch"])


def test_students_are_compared_with_ddim_at_the_same_steps_clip_by_clip(run):
    folder, _, after = run
    with (folder / "differences.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["first"], row["second"], row["metric"]) for row in rows] == [
        (f"student-bsa-{steps}steps", f"teacher-{steps}steps", metric)
        for steps in (4, 2)
        for metric in ("fd_logmel", "kad_logmel")
    ]
    scores = {(row["model"], row["num_steps"]): row for row in after if row["seed"] == "0"}
    for row in rows:
        steps = row["first"].removeprefix("student-bsa-").removesuffix("steps")
        pair = [float(scores[model, steps][row["metric"]]) for model in ("student", "teacher")]
        assert float(row["difference"]) == pytest.approx(pair[0] - pair[1], abs=1e-6)
        assert float(row["low"]) < float(row["difference"]) < float(row["high"])


def test_reference_rows_are_kept_between_runs(run, teacher_folder, monkeypatch):
    cache = run[0].parent / "cache"
    assert {path.name for path in run[0].parent.iterdir()} == {"run", "cache"}
    files = sorted((cache / "rows").glob("*.safetensors"))
    assert len(files) == 4  # of 24 clips in batches of 7
    monkeypatch.setattr(LogMelStatistics, "forward", None)
    teacher, zero = load_teacher(teacher_folder), teacher_system(teacher_folder, num_steps=2, guidance_scale=2.0)
    settings = {"num_captions": 20, "batch_size": 7, "teacher": teacher, "zero": zero, "cache": cache}
    Protocol(ToyClips(24), **settings)
    with pytest.raises(TypeError, match="not callable"):
        Protocol(ToyClips(24), **settings | {"cache": cache / "other"})
    assert sorted((cache / "rows").glob("*.safetensors")) == files


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


def test_every_embedding_adds_its_columns(teacher_folder):
    teacher, zero = load_teacher(teacher_folder), teacher_system(teacher_folder, num_steps=2, guidance_scale=2.0)
    settings = {"batch_size": 8, "teacher": teacher, "zero": zero, "embeddings": [LogMelStatistics(), Words()]}
    score = Protocol(ToyClips(40), num_captions=40, at_infinity=True, **settings).score(zero, seed=0)
    assert list(score.metrics) == [
        "fd_logmel", "kad_logmel", "fd_logmel_inf", "fd_logmel_inf_r2", "fd_words", "kad_words", "kl_words",
        "is_words", "words_score", "fd_words_inf", "fd_words_inf_r2", "trajectory_error", "seconds_per_clip",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"fd_words is of 9 clips \(45 rows\)"):
        Protocol(ToyClips(40), num_captions=9, **settings)


def test_too_few_clips_for_log_mel_statistics_are_only_told(teacher_folder, caplog):
    teacher, zero = load_teacher(teacher_folder), teacher_system(teacher_folder, num_steps=2, guidance_scale=2.0)
    Protocol(ToyClips(6), num_captions=4, batch_size=4, teacher=teacher, zero=zero)
    assert "fd_logmel is of 4 clips (4 rows)" in caplog.text


def test_samples_are_kept_beside_the_reference(run):
    folder, _, _ = run
    captions = json.loads((folder / "samples" / "captions.json").read_text())
    assert captions == {"00-a-dog-barks.wav": "a dog barks", "01-rain.wav": "rain"}
    systems = {path.name for path in (folder / "samples").iterdir() if path.is_dir()}
    assert {"reference", "teacher-8steps", "student-bsa-2steps"} <= systems
    for system in systems:
        files = sorted((folder / "samples" / system).iterdir())
        assert [path.name for path in files] == ["00-a-dog-barks.wav", "01-rain.wav"]
        assert soundfile.info(files[0]).frames == 32 * 160


@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_do_not_depend_on_batches_or_ranks(teacher_folder, batch_size):
    teacher = load_teacher(teacher_folder)
    zero = teacher_system(teacher_folder, num_steps=2, guidance_scale=2.0)
    latents = []
    for rank in range(2):
        protocol = Protocol(
            ToyClips(6), num_captions=4, batch_size=batch_size, teacher=teacher, zero=zero, rank=rank, world_size=2
        )
        latents.append(torch.cat(protocol._sample(zero, 7).latents))
    whole = Protocol(ToyClips(6), num_captions=4, batch_size=4, teacher=teacher, zero=zero)._sample(zero, 7).latents[0]
    torch.testing.assert_close(torch.stack(latents, 1).flatten(0, 1), whole, rtol=0, atol=1e-5)


def test_noise_is_of_the_clip():
    assert torch.equal(noise_of([5, 2], seed=0, shape=(3,))[1], noise_of([2], seed=0, shape=(3,))[0])
    assert not torch.equal(noise_of([2], seed=0, shape=(3,)), noise_of([2], seed=1, shape=(3,)))


def test_scores_of_other_clips_are_not_mixed(run, teacher_folder, latents_folder):
    folder, _, after = run
    scoring = Scoring(ToyClips(24, "others"), num_captions=20, seeds=[2], batch_size=7)
    with pytest.raises(UserError, match="holds scores of another clips; delete it, or start another run"):
        trainer_of(folder, scoring).test(module_of(teacher_folder), data_of(latents_folder), verbose=False)
    scoring = Scoring(ToyClips(24), num_captions=20, seeds=[2], batch_size=7, embeddings=[Words()])
    with pytest.raises(UserError, match="holds scores of another embeddings; delete it"):
        trainer_of(folder, scoring).test(module_of(teacher_folder), data_of(latents_folder), verbose=False)
    assert ScoreFile(folder / "scores.csv").rows() == after


def test_mistakes(teacher_folder, latents_folder, tmp_path):
    with pytest.raises(UserError, match="seeds is empty"):
        Scoring(ToyClips(6), seeds=[])
    for name, value in [
        ("num_captions", 0),
        ("batch_size", -1),
        ("num_samples", -1),
        ("seeds", [0, -1]),
        ("seeds", [1, 1]),
    ]:
        with pytest.raises(UserError, match=f"{name} is"):
            Scoring(ToyClips(6), **{name: value})
    with pytest.raises(UserError, match="no students to score"):
        trainer_of(tmp_path, Scoring(ToyClips(6))).test(
            module_of(teacher_folder), data_of(latents_folder), verbose=False
        )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"baselines": ["nowhere"]}, 'model is "nowhere", but no such folder exists'),
        ({"embeddings": [Words()], "num_captions": 4}, "fd_words is of 4 clips"),
        ({"cache": "FILE"}, "cache is .*, but .* is not a folder"),
        ({"clips": Soundscapes(24)}, "sample_rate is 8000, but soundscapes are made at 16000 Hz"),
    ],
)
def test_what_would_end_the_scoring_ends_the_fit_before_its_first_update(
    teacher_folder, latents_folder, tmp_path, monkeypatch, settings, text
):
    (tmp_path / "file").touch()
    settings = {"clips": ToyClips(24)} | settings
    if settings.get("cache"):
        settings["cache"] = tmp_path / "file" / "cache"
    if isinstance(settings["clips"], Soundscapes):
        monkeypatch.setattr("bsa_lightning.teachers.mel_codec._SAMPLE_RATE", 8000)
    with pytest.raises(UserError, match=text):
        trainer_of(tmp_path / "run", Scoring(**settings)).fit(module_of(teacher_folder), data_of(latents_folder))
    assert not (tmp_path / "run").exists()


def test_scoring_forgets_the_teacher_of_another_trainer(run, teacher_folder, latents_folder, tmp_path):
    """The same callback with another guidance scale: the scores of a new one."""
    old, new = Scoring(ToyClips(24), num_captions=20, seeds=[0]), Scoring(ToyClips(24), num_captions=20, seeds=[0])
    errors = {}
    for name, scoring, scale in (("first", old, 1.0), ("again", old, 3.0), ("new", new, 3.0)):
        module = module_of(teacher_folder, guidance=Baked(scale), plan=Plan(8, 4, 1))
        trainer_of(tmp_path / name, scoring).fit(module, data_of(latents_folder))
        rows = ScoreFile(tmp_path / name / "scores.csv").rows()
        errors[name] = {row["model"]: row["trajectory_error"] for row in rows}
    assert errors["again"] == errors["new"] != errors["first"]
