"""The parts that docs/own-parts.md shows how to add work, and docs/settings.md is what the code says."""

import subprocess
import sys
import tomllib

import pytest
import torch
from pages import ROOT, blocks, tables

from bsa_lightning.cli import help_texts
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.diffusion import weighting
from bsa_lightning.diffusion.schedule import CosineSchedule, trailing_grid
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.evaluation.reference import embed
from bsa_lightning.models import registry
from docs.tools import settings

PAGE = ROOT / "docs" / "own-parts.md"
LIMITS = [row for row in tables(ROOT / "docs" / "mathematics.md") if len(row) == 6]


@pytest.fixture
def defined(monkeypatch):
    """What the examples of the page define; the family is registered for this test alone."""
    monkeypatch.setattr(registry, "_families", dict(registry._families))
    names = {}
    for body in blocks(PAGE, "python"):
        exec(compile(body, str(PAGE), "exec"), names)
    return names


def test_weighting_has_weights_that_a_ladder_accepts(defined):
    times = trailing_grid(8)[:-1]
    for own in (defined["LogSNR"](), weighting.OwnWeighting(defined["log_snr"])):
        weighting.check_weights(own, CosineSchedule(), times, where="in the test")
        assert own(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([0.0, 0.6931472])
    assert weighting.OwnWeighting(defined["log_snr"]).name == "log-snr"


def test_a_method(defined):
    method, plan, schedule = defined["EveryTime"](), Plan(8, 4, 1), CosineSchedule()
    assert method.times(schedule, plan, plan.rounds[0]).tolist() == [k / 8 for k in range(8, 1, -1)]
    times = method.step_times(torch.tensor([0.0, 0.999]).double(), schedule=schedule, num_steps=4, factor=2)
    assert [time.tolist() for time in times] == [[1, 0.25], [0.875, 0.125], [0.75, 0]]
    assert method.target_predictors(teacher="teacher", average="average") == ("teacher", "teacher")


def test_data_set_is_prepared(defined, teacher_folder, tmp_path):
    clips = defined["Tones"](3)
    prepare_folder(clips, tmp_path / "store", str(teacher_folder))
    clip = LatentReader(tmp_path / "store")[2]
    assert clip.captions == ["A tone of 102 Hz"]


def test_embedding_measures_what_it_says(defined):
    tone = 0.1 * torch.sin(torch.arange(16_000) * 2 * torch.pi / 100).expand(3, 1, -1)
    features = embed(defined["Loudness"](), tone, sample_rate=16_000)
    assert features.rows.shape == (3, 10, 1)
    torch.testing.assert_close(features.rows, torch.full((3, 10, 1), -23.0103), rtol=0, atol=1e-3)


def test_family_reads_a_model_folder(defined):
    family = registry._registered()["MyPipeline"]()
    assert isinstance(family, defined["MyFamily"])
    folder = registry.resolve_folder("tiny")
    codec = family.codec(folder)
    denoiser = family.denoiser(folder, dtype=torch.float32)
    z_t = torch.zeros(1, *codec.latent_shape)
    prediction = denoiser(z_t, torch.ones(1), family.conditioner(folder)(["A tone"]))
    assert prediction.x.shape == z_t.shape


def test_entry_points_have_the_group_that_is_read():
    (body,) = blocks(PAGE, "toml")
    (group,) = tomllib.loads(body)["project"]["entry-points"]
    assert group == registry.ENTRY_POINTS


def test_page_of_settings_is_what_the_code_says():
    assert settings.PAGE.read_text() == settings.page(), "run python -m docs.tools.settings"


def test_help_that_comes_as_text_is_what_the_parser_prints(tmp_path):
    subprocess.run([sys.executable, "-m", "docs.tools.help_texts", str(tmp_path)], cwd=ROOT, check=True)
    for command in help_texts.COMMANDS:
        text = (help_texts.FOLDER / f"{command}.txt").read_text()
        assert text == (tmp_path / f"{command}.txt").read_text(), "run python -m docs.tools.settings"


def test_every_setting_has_a_meaning():
    rows = [line.split(" | ") for line in settings.PAGE.read_text().splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows if not row[-1].strip(" |")] == []


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: row[0])
def test_limits_of_weightings_are_those_of_the_code(row):
    weight = getattr(weighting, row[0].split("`")[1])()
    snr = torch.tensor([1e-24, 1e24], dtype=torch.float64)
    spaces = (weight(snr), weight.in_eps(snr), weight.in_v(snr), weight.in_u(snr))
    for cell, values in zip(row[2:], spaces, strict=True):
        stated = [weighting._GAMMA if word == "gamma" else float(word) for word in cell.split(";")[0].split(", ")]
        found = [0.0 if value < 1e-9 else float("inf") if value > 1e9 else value for value in values.tolist()]
        assert found == pytest.approx(stated, rel=1e-9)


def test_limits_are_given_of_every_weighting():
    classes = settings.subclasses(weighting.Weighting)
    assert [row[0].split("`")[1] for row in LIMITS] + ["OwnWeighting"] == [cls.__name__ for cls in classes]
