import json

import pytest
from reporting.runs import CLIPS, sine, write_run, write_wav

from bsa_lightning.evaluation.scores import Score, ScoreFile
from bsa_lightning.reporting.results import read_results
from bsa_lightning.reporting.samples import read_samples


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def read(*runs):
    return read_samples(runs, read_results(runs))


def test_systems_are_named_and_ordered(run):
    others = ("teacher-8steps", "teacher-dpm-solver++-unguided-8steps")
    for folder in (*others, "student-min-snr-1steps", "baseline-tiny-2steps"):
        write_wav(run / "samples" / folder / "00-a-dog-barks.wav", sine(50.0))
    captions, systems = read(run)
    assert captions == ["A dog barks", "A bell rings twice"]
    assert [(system.name, system.detail) for system in systems] == [
        ("Reference", "recorded"),
        ("Teacher (DDIM), 8 steps", "NFE 16"),
        ("Teacher (DDIM), 4 steps", "NFE 8"),
        ("Teacher (DPM-Solver++, no guidance), 8 steps", ""),
        ("Student (bsa), 4 steps", "NFE 4"),
        ("Student (min-snr), 1 step", ""),
        ("Baseline-tiny, 2 steps", ""),
    ]
    assert list(systems[1].sounds) == ["A dog barks"]
    assert [system.name for system in systems if not system.shown] == ["Teacher (DPM-Solver++, no guidance), 8 steps"]


@pytest.mark.parametrize(
    ("clips", "detail"),
    [
        ("bsa_lightning.data.soundscapes.Soundscapes", "synthesised"),
        ("bsa_lightning.data.prepared_sound.PreparedSound", "decoded from prepared latents"),
        ("bsa_lightning.data.tar_shards.WebDataset", "recorded"),
        ("mine.Clips", ""),
    ],
)
def test_the_reference_is_what_the_held_out_clips_are(run, clips, detail):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(CLIPS, clips))
    assert read(run)[1][0].detail == detail
    config.write_text("model: {}\n")
    assert read(run)[1][0].detail == ""


def test_evaluations_are_those_of_the_same_sampler_and_guidance(run):
    file = ScoreFile(run / "scores.csv")
    for scale, nfe in ((2.0, 8), (1.0, 4)):
        file.append(Score("teacher", "", 0, 4, "outside", scale, nfe, 0, 64, {"fd_logmel": 1.0}, "dpm-solver++"))
    folders = {"teacher-dpm-solver++-4steps": "NFE 8", "teacher-dpm-solver++-unguided-4steps": "NFE 4"}
    for folder in folders:
        write_wav(run / "samples" / folder / "00-a-dog-barks.wav", sine(50.0))
    assert {system.id: system.detail for system in read(run)[1] if system.id in folders} == folders


def test_equal_systems_of_two_runs_are_one(run, tmp_path):
    other = write_run(tmp_path / "other")
    write_wav(other / "samples" / "student-bsa-4steps" / "00-a-dog-barks.wav", sine(999.0))
    _, systems = read(run, other)
    assert [system.id for system in systems] == [
        "reference",
        "teacher-4steps",
        "student-bsa-4steps@run",
        "student-bsa-4steps@other",
    ]
    assert systems[-1].name == "Student (bsa), 4 steps, other"
    assert systems[-1].sounds["A dog barks"].is_relative_to(other)


def test_captions_come_from_their_file_or_the_names(run):
    long = "a-" * 30
    write_wav(run / "samples" / "reference" / f"02-{long[:-1]}.wav", sine(50.0))
    (run / "samples" / "captions.json").write_text(json.dumps({"00-a-dog-barks.wav": "A dog barks, twice!"}))
    captions, _ = read(run)
    assert captions == ["A dog barks, twice!", "A bell rings twice", ("a " * 30).strip().capitalize() + "…"]


def test_no_samples(run, tmp_path):
    (tmp_path / "bare").mkdir()
    assert read_samples([tmp_path / "bare"], []) == ([], [])


def test_of_a_ladder_without_guidance_the_teacher_is_shown(tmp_path):
    for folder in ("teacher-unguided-8steps", "teacher-dpm-solver++-unguided-8steps", "student-bsa-4steps"):
        write_wav(tmp_path / "samples" / folder / "00-a-dog-barks.wav", sine(50.0 + len(folder)))
    _, systems = read_samples([tmp_path], [])
    assert {system.id for system in systems if system.shown} == {"teacher-unguided-8steps", "student-bsa-4steps"}
