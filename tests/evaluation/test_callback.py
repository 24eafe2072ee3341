import pytest
import soundfile
import torch
from ladder import data_of, module_of, trainer_of
from toy_clips import ToyClips

from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.callback import Scoring
from bsa_lightning.evaluation.generation import noise_of
from bsa_lightning.evaluation.protocol import Protocol, teacher_system
from bsa_lightning.evaluation.scores import ScoreFile
from bsa_lightning.teachers.folder import load_teacher


@pytest.fixture(scope="module")
def run(teacher_folder, latents_folder, tmp_path_factory):
    """A finished and tested run."""
    run = tmp_path_factory.mktemp("run")
    scoring = Scoring(ToyClips(6), num_captions=4, seeds=[0, 1], batch_size=3, num_samples=2)
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


def test_samples_are_kept_beside_the_reference(run):
    folder, _, _ = run
    systems = {path.name for path in (folder / "samples").iterdir()}
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
        latents.append(torch.cat(protocol._latents(zero, 7)[0]))
    whole = Protocol(ToyClips(6), num_captions=4, batch_size=4, teacher=teacher, zero=zero)._latents(zero, 7)[0][0]
    torch.testing.assert_close(torch.stack(latents, 1).flatten(0, 1), whole, rtol=0, atol=1e-5)


def test_noise_is_of_the_clip():
    assert torch.equal(noise_of([5, 2], seed=0, shape=(3,))[1], noise_of([2], seed=0, shape=(3,))[0])
    assert not torch.equal(noise_of([2], seed=0, shape=(3,)), noise_of([2], seed=1, shape=(3,)))


def test_scores_of_other_clips_are_not_mixed(run, teacher_folder, latents_folder):
    folder, _, after = run
    scoring = Scoring(ToyClips(6, "others"), num_captions=4, seeds=[2], batch_size=3)
    with pytest.raises(UserError, match="holds scores of another clips; delete it, or start another run"):
        trainer_of(folder, scoring).test(module_of(teacher_folder), data_of(latents_folder), verbose=False)
    assert ScoreFile(folder / "scores.csv").rows() == after


def test_mistakes(teacher_folder, latents_folder, tmp_path):
    with pytest.raises(UserError, match="seeds is empty"):
        Scoring(ToyClips(6), seeds=[])
    with pytest.raises(UserError, match="no students to score"):
        trainer_of(tmp_path, Scoring(ToyClips(6))).test(
            module_of(teacher_folder), data_of(latents_folder), verbose=False
        )
