"""What a round's average of the student is made of, and who is validated, handed on and trained further."""

import functools

import pytest
import torch
from ladder import data_of, module_of, trainer_of
from tolerances import FLOAT32

from bsa_lightning.distillation.guidance_modes import Baked, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.loading import load_denoiser

DECAY = 0.75
SGD = functools.partial(torch.optim.SGD, lr=0.5)


def weights(network):
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])


def averaged(start, students):
    """DECAY average + (1 - DECAY) student, student by student."""
    for student in students:
        start = DECAY * start + (1 - DECAY) * student
    return start


@pytest.fixture(scope="module")
def ladder(teacher_folder, latents_folder, tmp_path_factory):
    """Two rounds of three updates; the weights of all networks before each step and after the last."""
    run, seen = tmp_path_factory.mktemp("averaging"), []
    module = module_of(
        teacher_folder, guidance=Outside(2.0), plan=Plan(8, 2, 3), ema_decay=DECAY, optimizer=SGD, seed=3
    )
    step = module.training_step

    def look():
        seen.append({name: weights(network) for name, network in (
            ("student", module.student), ("teacher", module.teacher), ("average", module.ema.average),
        )})  # fmt: skip

    def noted(batch, batch_idx):
        look()
        return step(batch, batch_idx)

    module.training_step = noted
    trainer_of(run).fit(module, data_of(latents_folder))
    look()
    return run, seen


def test_the_average_follows_the_student_with_every_update(ladder, teacher_folder):
    """Also that it starts as the teacher, and that the student that it follows has really moved."""
    _, seen = ladder
    start = weights(load_denoiser(teacher_folder))
    for entry in seen[:1]:
        assert all(torch.equal(entry[name], start) for name in ("student", "teacher", "average"))
    students = [entry["student"] for entry in seen]
    assert float((students[2] - students[1]).abs().max()) > 100 * FLOAT32["atol"]
    for number in (1, 2):
        torch.testing.assert_close(seen[number]["average"], averaged(start, students[1 : number + 1]), **FLOAT32)


def test_a_round_begins_with_student_and_teacher_at_the_average_of_the_one_before(ladder):
    """The average goes on from there, and is not started anew."""
    run, seen = ladder
    handed_on = weights(load_denoiser(run / "rounds" / "1-4steps"))
    assert all(torch.equal(seen[3][name], handed_on) for name in ("student", "teacher", "average"))
    assert not torch.equal(seen[2]["student"], handed_on)
    students = [entry["student"] for entry in seen]
    torch.testing.assert_close(seen[5]["average"], averaged(handed_on, students[4:6]), **FLOAT32)
    final = weights(load_denoiser(run / "rounds" / "2-2steps"))
    assert torch.equal(final, seen[-1]["average"])
    assert float((final - seen[-1]["student"]).abs().max()) > 100 * FLOAT32["atol"]


@pytest.mark.parametrize("decay", [None, DECAY])
def test_validation_is_of_what_a_round_hands_on(teacher_folder, latents_folder, tmp_path, decay):
    """Of the average, whatever the student is; and of the student where there is no average."""

    def validated(run, *, student=0.0, average=0.0):
        module = module_of(teacher_folder, ema_decay=decay)
        for network, shift in ((module.student, student), (module.ema and module.ema.average, average)):
            for parameter in network.parameters() if shift else ():
                parameter.data.add_(shift)
        found = trainer_of(tmp_path / run, limit_val_batches=1.0).validate(
            module, data_of(latents_folder), verbose=False
        )[0]
        return found["val/distillation_error"], found["val/trajectory_error"]

    start, student = validated("start"), validated("student", student=0.05)
    if decay is None:
        assert all(one != other for one, other in zip(start, student, strict=True))
    else:
        assert start == student
        average = validated("average", average=0.05)
        assert all(one != other for one, other in zip(start, average, strict=True))


@pytest.mark.parametrize("guidance", [Outside(2.0, caption_dropout=0.5), Baked(2.0)], ids=lambda mode: mode.name)
def test_a_share_of_the_captions_is_dropped_in_training_and_none_in_validation(
    guidance, teacher_folder, latents_folder, tmp_path
):
    """Clip by clip as the draws say: for the student and both steps of the target alike."""
    module, seen = module_of(teacher_folder, guidance=guidance, plan=Plan(8, 4, 4)), []
    original = module._errors_of

    def noted(student, batch, draws, conditioning):
        seen.append((module.trainer.training, batch, draws, conditioning))
        return original(student, batch, draws, conditioning)

    module._errors_of = noted
    data = data_of(latents_folder)
    trainer_of(tmp_path, limit_val_batches=1, val_check_interval=2).fit(module, data)
    dropped = 0
    for training, batch, draws, conditioning in seen:
        for i in range(len(conditioning)):
            expected = batch.conditioning[i : i + 1]
            if training and not draws.keep_caption[i]:
                expected, dropped = data.null, dropped + 1
            assert conditioning.split()[i].digest() == expected.split()[0].digest()
    assert {training for training, *_ in seen} == {True, False}
    assert (dropped > 0) == (guidance.caption_dropout > 0)
    assert dropped < 16
