"""Guidance modes with conditional Gaussian teachers in float64: an ideal student is known in closed form."""

from types import SimpleNamespace

import pytest
import torch
from gaussian import COND, NULL, SCHEDULES, Gaussian, noise
from tolerances import IDENTITY

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.diffusion.losses import distillation_target
from bsa_lightning.diffusion.process import Prediction, expand
from bsa_lightning.diffusion.schedule import CosineSchedule
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.models.predictor import CountEvaluations, predictor
from bsa_lightning.models.sampling_settings import SamplingSettings

G = 3.0


class Ideal(Gaussian):
    """A student that has learnt its round's target perfectly."""

    def __init__(self, teacher, guidance, *, round_index, num_steps):
        super().__init__(teacher.schedule)
        self.teacher, self.guidance, self.round_index, self.num_steps = teacher, guidance, round_index, num_steps
        self.takes_guidance = isinstance(guidance, Embedded)

    def forward(self, z_t, t, conditioning, guidance_scale=None):
        scale = guidance_scale
        if scale is None:
            scale = self.guidance.target_scale(self.round_index, torch.zeros(len(z_t)))
        x = distillation_target(
            teacher=predictor(self.teacher, conditioning, null=NULL, guidance_scale=scale),
            schedule=self.schedule,
            z_t=z_t,
            times=(t, t - 0.5 / self.num_steps, (t - 1 / self.num_steps).clamp(min=0)),
        )
        alpha, sigma = (expand(value, z_t) for value in self.schedule.alpha_sigma(t, dtype=z_t.dtype))
        return Prediction(x, (z_t - alpha * x) / sigma)


def final(denoiser, num_steps, scale):
    denoise = predictor(denoiser, COND, null=NULL, guidance_scale=scale)
    return sample(denoise=denoise, schedule=denoiser.schedule, noise=noise(3, 4), num_steps=num_steps)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("guidance", [Outside(G), Baked(G), Embedded(G, 1.0, 5.0)], ids=lambda mode: mode.name)
def test_two_rounds_of_ideal_students_sample_like_the_guided_teacher(schedule, guidance):
    """The first target is the guided teacher's two steps; guided outside, linear students stay exact as well."""
    teacher = Gaussian(schedule)
    first = Ideal(teacher, guidance, round_index=0, num_steps=10)
    second = Ideal(first, guidance, round_index=1, num_steps=5)
    truth = final(teacher, 20, G)
    if guidance.name == "outside":
        truth = G * final(teacher, 20, 1.0) + (1 - G) * sample(
            denoise=predictor(teacher, NULL.repeat(3)), schedule=schedule, noise=noise(3, 4), num_steps=20
        )
    for student, num_steps in ((first, 10), (second, 5)):
        torch.testing.assert_close(final(student, num_steps, guidance.student_scale), truth, **IDENTITY)


@pytest.mark.parametrize("scale", [1.0, 2.5, 5.0])
def test_an_embedded_student_follows_every_scale(scale):
    teacher, mode = Gaussian(CosineSchedule()), Embedded(G, 1.0, 5.0)
    student = Ideal(Ideal(teacher, mode, round_index=0, num_steps=8), mode, round_index=1, num_steps=4)
    torch.testing.assert_close(final(student, 4, scale), final(teacher, 16, scale), **IDENTITY)


def test_scales_of_a_batch_are_each_clips_own():
    scales = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    z, t = noise(3, 4), torch.full((3,), 0.5)
    together = predictor(Gaussian(CosineSchedule()), COND, null=NULL, guidance_scale=scales)(z, t)
    for i, scale in enumerate(scales.tolist()):
        one = slice(i, i + 1)
        alone = predictor(Gaussian(CosineSchedule()), COND[one], null=NULL, guidance_scale=scale)(z[one], t[one])
        torch.testing.assert_close(together.x[one], alone.x, **IDENTITY)


def test_embedded_draws_its_scales_from_its_range():
    scales = Embedded(3.0, 2.0, 6.0).target_scale(0, torch.tensor([0.0, 0.25, 0.5]))
    assert scales.tolist() == [2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("guidance", "teacher_nfe", "student_nfe"),
    [(Outside(G), 20, 10), (Baked(G), 20, 5), (Embedded(G), 20, 5), (Outside(1.0), 10, 5)],
    ids=["outside", "baked", "embedded", "unguided"],
)
def test_evaluations_are_counted_on_the_network(guidance, teacher_nfe, student_nfe):
    teacher = Gaussian(CosineSchedule())
    student = Ideal(teacher, guidance, round_index=0, num_steps=5)
    for network, num_steps, scale, nfe in (
        (teacher, 10, guidance.scale, teacher_nfe),
        (student, 5, guidance.student_scale, student_nfe),
    ):
        with CountEvaluations(network) as counted:
            final(network, num_steps, scale)
        assert counted.rows == nfe * len(COND)
        final(network, num_steps, scale)
        assert counted.rows == nfe * len(COND)  # what comes after the context is not counted


def test_networks_without_a_place_for_it_refuse_embedded_guidance():
    with pytest.raises(UserError, match=r"guidance is Embedded, but Gaussian's network has no input"):
        Embedded(G).prepare(Gaussian(CosineSchedule()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Baked(-1.0), "guidance scale is -1"),
        (lambda: Embedded(3.0, 4.0, 6.0), r"low=4\.0 to high=6\.0"),
        (lambda: Embedded(1.0, 1.0, 1.0), "low must be below high"),
        (lambda: SamplingSettings(5, "baked", 3.0).scale(4.0), r"guidance scale is 4\.0, but .* 3\.0 baked in"),
        (
            lambda: SamplingSettings(5, "embedded", 3.0, (1.0, 6.0)).scale(7.0),
            r"guidance scale is 7\.0, .* from 1\.0 to 6\.0",
        ),
        (lambda: SamplingSettings(5, "outside", 3.0).scale(-2.0), r"guidance scale is -2\.0"),
    ],
)
def test_scales_that_cannot_be(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("scale", [G, 0.0, torch.tensor([G, 1.0, 1.0])])
def test_a_scale_is_never_dropped_for_want_of_the_null_conditioning(scale):
    with pytest.raises(UserError, match="needs the conditioning of the empty caption"):
        predictor(Gaussian(CosineSchedule()), COND, guidance_scale=scale)


@pytest.mark.parametrize(
    ("guidance", "again", "refused"),
    [
        (Baked(2.0), Baked(2.0), True),
        (Baked(2.0), Outside(2.0), True),
        (Baked(2.0), Baked(1.0), False),
        (Embedded(2.0), Baked(2.0), True),
        (Embedded(2.0), Embedded(2.0), False),
        (Embedded(2.0), Baked(1.0), True),
        (Embedded(2.0), Outside(1.0), True),
        (Baked(2.0), Outside(1.0), False),
        (Baked(2.0), Embedded(2.0), True),
        (Baked(2.0), Embedded(1.0, 1.0, 6.0), True),
        (Embedded(2.0), Embedded(3.0, 2.0, 6.0), False),
        (Embedded(2.0), Embedded(3.0, 1.0, 20.0), True),
        (Embedded(2.0), Embedded(3.0, 0.5, 6.0), True),
        (Outside(2.0), Outside(3.0), False),
        (Outside(2.0), Embedded(2.0), False),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_a_student_as_first_teacher(guidance, again, refused):
    own = SamplingSettings(4, guidance.name, guidance.scale, guidance.range)
    if refused:
        by = f"{again.scale:g}" if again.range is None else "scales from {:g} to {:g}".format(*again.range)
        told = f"a student with guidance {guidance.name}.*, which cannot be guided by {by} in the mode {again.name}"
        with pytest.raises(UserError, match=told):
            again.check_teacher("models/student", own)
    else:
        again.check_teacher("models/student", own)


def test_a_student_of_any_scale_takes_all():
    Embedded(2.0, 0.0, 1000.0).check_teacher("models/student", SamplingSettings(4, "embedded", 2.0))


def test_modes_are_what_they_are_where_nothing_else_is_said():
    assert [mode.caption_dropout for mode in (Outside(2.0), Baked(2.0), Embedded(2.0))] == [0.1, 0.0, 0.0]
    assert [mode.range for mode in (Outside(2.0), Baked(2.0), Embedded(2.0))] == [None, None, (1.0, 6.0)]


def test_scales_and_shares_on_the_edge_are_taken():
    assert [mode.scale for mode in (Outside(0.0), Baked(0.5), Embedded(0.5, 0.0, 1.0))] == [0.0, 0.5, 0.5]
    assert [Outside(2.0, caption_dropout=share).caption_dropout for share in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]
    assert [Embedded(scale, 2.0, 3.0).range for scale in (2.0, 3.0)] == [(2.0, 3.0)] * 2
    with pytest.raises(UserError, match=r"scale=4\.0 between them"):
        Embedded(4.0, 2.0, 3.0)


def test_an_input_for_the_scale_is_added_once():
    for takes, added in ((False, ["added"]), (True, [])):
        told = []
        student = SimpleNamespace(takes_guidance=takes, add_guidance_input=lambda told=told: told.append("added"))
        Embedded(2.0).prepare(student)
        assert told == added
