import shutil
from dataclasses import FrozenInstanceError

import pytest
import torch
from gaussian import COND, noise

from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation.teachers import FirstTeacher, TeacherReference, drop_teacher, restore_teacher
from bsa_lightning.models.loading import folder_sha256


@pytest.fixture
def folders(teacher_folder, tmp_path):
    """The first teacher, and a run with a student that was made of it."""
    from tiny_model import write_model

    write_model(tmp_path / "run" / "student", seed=1)
    return shutil.copytree(teacher_folder, tmp_path / "first"), tmp_path / "run"


def spoil(folder):
    path = next(folder.glob("unet/*.safetensors"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_a_reference_finds_the_first_teacher_and_the_student_of_a_round(folders):
    first, run = folders
    digest = folder_sha256(first)
    one = TeacherReference(digest, None, digest).load(first=str(first), run_folder=run, dtype=torch.float32)
    student = TeacherReference(digest, "student", folder_sha256(run / "student"))
    other = student.load(first=str(first), run_folder=run, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in one.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in other.parameters()} == {torch.bfloat16}
    assert not torch.equal(weights(one).bfloat16(), weights(other))
    with pytest.raises(FrozenInstanceError):
        student.student = "another"


def test_a_teacher_that_is_not_the_one_of_the_checkpoint_is_refused(folders):
    first, run = folders
    reference = TeacherReference(folder_sha256(first), "student", folder_sha256(run / "student"))
    where = {"first": str(first), "run_folder": run, "dtype": torch.float32}
    with pytest.raises(UserError, match="the run began with another one"):
        reference.load(**where | {"first": str(run / "student")})
    spoil(run / "student")
    with pytest.raises(UserError, match="holds another teacher than the checkpoint was trained with"):
        reference.load(**where)
    shutil.rmtree(run / "student")
    with pytest.raises(UserError, match="the teacher of the checkpoint's round, is missing"):
        reference.load(**where)


def test_the_weights_of_the_teacher_leave_a_checkpoint_and_come_back():
    teacher = torch.nn.Linear(2, 1)
    state = {"student.weight": torch.ones(1), **{f"teacher.{name}": t for name, t in teacher.state_dict().items()}}
    checkpoint = {"state_dict": dict(state)}
    drop_teacher(checkpoint, TeacherReference("a", None, "b"))
    assert list(checkpoint["state_dict"]) == ["student.weight"]
    assert checkpoint["teacher"] == {"first_sha256": "a", "student": None, "sha256": "b"}
    restore_teacher(checkpoint, teacher)
    assert checkpoint["state_dict"].keys() == state.keys()
    assert all(torch.equal(checkpoint["state_dict"][name], tensor) for name, tensor in state.items())


def test_each_batch_is_sampled_once_and_the_network_held_for_one_validation():
    loaded, sampled = [], []

    def load():
        loaded.append("teacher")
        return "teacher"

    def sample(teacher):
        sampled.append(teacher)
        return torch.full((3,), float(len(sampled)))

    first = FirstTeacher(load)
    batches = [(noise(3, 2), COND), (noise(3, 2, seed=1), COND), (noise(3, 2), COND[torch.tensor([2, 1, 0])])]
    for number, batch in enumerate([*batches, *batches]):
        assert first.final(*batch, sample).tolist() == [number % 3 + 1.0] * 3
    assert (loaded, sampled) == (["teacher"], ["teacher"] * 3)
    first.release()
    assert first.final(*batches[0], sample).tolist() == [1.0] * 3
    assert loaded == ["teacher"]
    first.final(noise(3, 2, seed=2), COND, sample)
    assert loaded == ["teacher"] * 2
