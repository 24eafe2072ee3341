import csv
import json
import math
import shutil

import pytest
import soundfile
import torch
from ladder import data_of, module_of, trainer_of
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.recording import Recording
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.distillation.guidance_modes import Baked
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.evaluation.embeddings.base import Embedding, Features
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.metrics.divergence import clap_score
from bsa_lightning.evaluation.scores import COLUMNS, ScoreFile
from bsa_lightning.evaluation.scoring import Scoring
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.evaluation.system_name import SystemName
from bsa_lightning.generation.samplers import DDIM
from bsa_lightning.models.loading import folder_sha256

SAMPLERS = ("ddim", "dpm-solver++")


@pytest.fixture(scope="module")
def run(teacher_folder, latents_folder, tmp_path_factory):
    """A finished and tested run."""
    run = tmp_path_factory.mktemp("study") / "run"
    run.mkdir()
    settings = {"num_captions": 20, "seeds": [0, 1], "batch_size": 7, "num_samples": 2}
    scoring = Scoring(ScoringSettings(ToyClips(24), **settings, cache=run.parent / "cache"))
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
    assert len(after) == 1 + 13 * 2
    full = [row for row in after if row["num_steps"] == "8"]
    assert {row["trajectory_error"] for row in full} == {"0"}
    assert all(float(row["trajectory_error"]) > 0 for row in after if row["num_steps"] in ("4", "2"))


def test_students_have_rivals_at_their_steps_and_at_their_evaluations(run):
    errors = {
        (row["sampler"], row["guidance_scale"], row["num_steps"], row["nfe"]): float(row["trajectory_error"])
        for row in run[2]
        if row["model"] == "teacher" and row["seed"] == "0"
    }
    assert errors.keys() == {
        ("ddim", "2.0", "8", "16"),
        *((sampler, "2.0", *counts) for sampler in SAMPLERS for counts in (("4", "8"), ("2", "4"), ("1", "2"))),
        *((sampler, "1.0", *counts) for sampler in SAMPLERS for counts in (("4", "4"), ("2", "2"))),
    }
    for counts in (("2.0", "2", "4"), ("2.0", "1", "2"), ("1.0", "2", "2")):  # both take steps of first order alone
        assert errors["ddim", *counts] == pytest.approx(errors["dpm-solver++", *counts], rel=1e-2)
    assert errors["dpm-solver++", "2.0", "4", "8"] != pytest.approx(errors["ddim", "2.0", "4", "8"], rel=0.02)


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
    assert card["readings"] == {"logmel": "plain"}
    expected = {"num_reference": 24, "num_captions": 20, "seeds": [0, 1], "guidance_scale": 2.0, "grid": "trailing"}
    assert {name: card[name] for name in expected} == expected
    assert card["num_missing"] == 0
    assert torch.__version__.startswith(card["versions"]["torch"])


def test_students_are_compared_with_every_rival_clip_by_clip(run):
    folder, _, after = run
    with (folder / "differences.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    dpm = "teacher-dpm-solver++"
    rivals = {
        4: {"teacher-4steps", "teacher-2steps", "teacher-unguided-4steps"}
        | {f"{dpm}-4steps", f"{dpm}-2steps", f"{dpm}-unguided-4steps"},
        2: {"teacher-2steps", "teacher-1steps", "teacher-unguided-2steps"}
        | {f"{dpm}-2steps", f"{dpm}-1steps", f"{dpm}-unguided-2steps"},
    }
    metrics = ["trajectory_error", "fd_logmel", "kad_logmel"]
    assert sorted((row["first"], row["second"], row["metric"]) for row in rows) == sorted(
        (f"student-bsa-{steps}steps", rival, metric)
        for steps, names in rivals.items()
        for rival in names
        for metric in metrics
    )
    scores = {name_of(row): row for row in after if row["seed"] == "0"}
    for row in rows:
        pair = [float(scores[row[side]][row["metric"]]) for side in ("first", "second")]
        assert float(row["difference"]) == pytest.approx(pair[0] - pair[1], abs=1e-6)
        assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    for steps, names in rivals.items():
        least = min(float(scores[name]["trajectory_error"]) for name in names)
        mine = [row for row in rows if row["first"] == f"student-bsa-{steps}steps"]
        (best,) = {row["second"] for row in mine if row["best_rival"] == "yes"}
        assert float(scores[best]["trajectory_error"]) == pytest.approx(least, rel=1e-2)


def name_of(row):
    unguided = row["model"] == "teacher" and row["guidance_scale"] == "1.0"
    return SystemName(row["model"], row["weighting"], row["sampler"], unguided, int(row["num_steps"])).folder


class Broken(ToyClips):
    """The last file cannot be read."""

    def inspect(self, i, *, seconds, num_channels=1):
        if i == self.num_clips - 1:
            raise UserError(f"{self.id(i)} cannot be read")


class Distances(Embedding):
    """Rows alone, of few of which nothing can be said."""

    name, metric, fingerprint, caption_metric = "words", "fd_words", "words-1", "words_score"
    sample_rate, num_features = 16_000, 4

    def forward(self, waveform):
        return Features(waveform[:, None, :4])

    def judge(self, rows, captions):
        return clap_score(rows, captions)


class CountedDistances(Distances):
    """A row for each 100 samples."""

    def num_rows(self, num_samples):
        return num_samples // 100


class ShortRecordings(ToyClips):
    """Recordings of 10 ms, far shorter than what is generated."""

    def recorded(self, i):
        return self.waveform(i, sample_rate=16_000, num_samples=160)[None], 16_000

    def inspect(self, i, *, seconds, num_channels=1):
        return Recording(silent=False, clipped=False, cut=False, other_channels=False, seconds=0.01)


def test_too_few_clips_for_log_mel_statistics_are_only_told(teacher_folder, latents_folder, tmp_path, caplog):
    scoring = Scoring(ScoringSettings(ToyClips(6), num_captions=4, batch_size=4, during_fit=False))
    trainer_of(tmp_path / "run", scoring).fit(module_of(teacher_folder), data_of(latents_folder))
    assert "fd_logmel says little: 4 clips (4 rows)" in caplog.text


def test_differences_that_an_ended_test_left_out_are_made_up_for(run, teacher_folder, latents_folder, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    expected = (folder / "differences.csv").read_text()
    (folder / "differences.csv").unlink()
    scoring = Scoring(ScoringSettings(ToyClips(24), num_captions=20, seeds=[0], batch_size=7))
    trainer_of(folder, scoring).test(module_of(teacher_folder), data_of(latents_folder), verbose=False)
    assert (folder / "differences.csv").read_text() == expected
    assert ScoreFile(folder / "scores.csv").rows() == run[2]


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


def test_scores_of_other_clips_are_not_mixed(run, teacher_folder, latents_folder):
    folder, _, after = run
    scoring = Scoring(ScoringSettings(ToyClips(24, "others"), num_captions=20, seeds=[2], batch_size=7))
    with pytest.raises(UserError, match="holds scores of another clips; delete it, or start another run"):
        trainer_of(folder, scoring).test(module_of(teacher_folder), data_of(latents_folder), verbose=False)
    scoring = Scoring(ScoringSettings(ToyClips(24), num_captions=20, seeds=[2], batch_size=7, embeddings=[Distances()]))
    with pytest.raises(UserError, match="holds scores of another embeddings and readings; delete it"):
        trainer_of(folder, scoring).test(module_of(teacher_folder), data_of(latents_folder), verbose=False)
    scoring = Scoring(ScoringSettings(ToyClips(24), num_captions=19, seeds=[2], batch_size=7))
    with pytest.raises(UserError, match="holds scores of another num_captions; delete it"):
        trainer_of(folder, scoring).test(module_of(teacher_folder), data_of(latents_folder), verbose=False)
    assert ScoreFile(folder / "scores.csv").rows() == after


def test_without_its_scores_a_card_refuses_nothing(run, teacher_folder, latents_folder, tmp_path):
    """Whoever is told to delete scores of another kind deletes the table, and not the card beside it."""
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / "scores.csv").unlink()
    scoring = Scoring(ScoringSettings(ToyClips(6, "others"), num_captions=4, seeds=[0], batch_size=4, rivals=[]))
    trainer_of(tmp_path / "run", scoring).test(module_of(teacher_folder), data_of(latents_folder), verbose=False)
    assert {row["num_clips"] for row in ScoreFile(tmp_path / "run" / "scores.csv").rows()} == {"4", "6"}


def test_mistakes(teacher_folder, latents_folder, tmp_path):
    with pytest.raises(UserError, match="seeds is empty"):
        Scoring(ScoringSettings(ToyClips(6), seeds=[]))
    for name, value in [
        ("num_captions", 0),
        ("batch_size", -1),
        ("num_samples", -1),
        ("seeds", [0, -1]),
        ("seeds", [1, 1]),
        ("renoising_steps", [1]),
        ("renoising_steps", [2.5]),
    ]:
        with pytest.raises(UserError, match=f"{name} is"):
            Scoring(ScoringSettings(ToyClips(6), **{name: value}))
    with pytest.raises(UserError, match="rivals holds 'ddim', but must list samplers"):
        Scoring(ScoringSettings(ToyClips(6), rivals=["ddim"]))
    with pytest.raises(UserError, match="rivals names ddim 2 times; name each sampler once"):
        Scoring(ScoringSettings(ToyClips(6), rivals=[DDIM(), DDIM()]))
    with pytest.raises(UserError, match="no students to score"):
        trainer_of(tmp_path, Scoring(ScoringSettings(ToyClips(6)))).test(
            module_of(teacher_folder), data_of(latents_folder), verbose=False
        )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"baselines": ["nowhere"]}, 'model is "nowhere", but no such folder exists'),
        ({"embeddings": [Distances()], "num_captions": 4}, "fd_words has no value: 4 clips say nothing"),
        (
            {"embeddings": [CountedDistances()], "num_captions": 20, "clips": ShortRecordings(24)},
            r"fd_words has no value: 24 reference clips \(24 rows\) say nothing",
        ),
        ({"renoising_steps": [2]}, r"renoising_steps is \[2\], but no student of this plan and method goes"),
        ({"cache": "FILE"}, "cache is .*, but .* is not a folder"),
        ({"clips": Broken(24)}, "toy-23 cannot be read"),
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
        monkeypatch.setattr("bsa_lightning.models.mel_codec._SAMPLE_RATE", 8000)
    with pytest.raises(UserError, match=text):
        trainer_of(tmp_path / "run", Scoring(ScoringSettings(**settings))).fit(
            module_of(teacher_folder), data_of(latents_folder)
        )
    assert not (tmp_path / "run").exists()


def test_scoring_forgets_the_teacher_of_another_trainer(run, teacher_folder, latents_folder, tmp_path):
    """The same callback with another guidance scale: the scores of a new one."""
    old, new = (
        Scoring(ScoringSettings(ToyClips(24), num_captions=20, seeds=[0])),
        Scoring(ScoringSettings(ToyClips(24), num_captions=20, seeds=[0])),
    )
    errors = {}
    for name, scoring, scale in (("first", old, 1.0), ("again", old, 3.0), ("new", new, 3.0)):
        module = module_of(teacher_folder, guidance=Baked(scale), plan=Plan(8, 4, 1))
        trainer_of(tmp_path / name, scoring).fit(module, data_of(latents_folder))
        rows = ScoreFile(tmp_path / name / "scores.csv").rows()
        errors[name] = {row["model"]: row["trajectory_error"] for row in rows}
    assert errors["again"] == errors["new"] != errors["first"]
