"""All mistakes of a command at once, each with what was meant and where it was written."""

import functools
import sys

import pytest
import torch
from embedding_weights import refuse_network
from toys import TOY_CONFIG, ToyModule

from bsa_lightning.cli import (
    classes,
    fit,  # noqa: F401 - its log handlers must not hold a captured stream
)
from bsa_lightning.cli.collected import Mistakes
from bsa_lightning.cli.main import main
from bsa_lightning.cli.order import refuse_wrong_order
from bsa_lightning.cli.setting_places import places, without_setting, yaml_settings
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.settings_alone import NotLoadedError, without_networks
from bsa_lightning.data.hugging_face import HuggingFaceDataset
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.evaluation.embeddings.vggish import VGGish
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.models.hub import fetch_model


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """The sentence with which a command is refused, run in a folder with the toy configuration."""
    monkeypatch.setattr(classes, "MODULES", ("bsa_lightning.diffusion.weighting",))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(TOY_CONFIG)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lightning", *words])
        assert main() == 2
        line = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning")][-1]
        return line.partition(": ")[2]

    return run


TOY = ("fit", "--config", "toy.yaml", "--run", "run")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((*TOY, "--trainer.max_step", "3"), "there is no option --trainer.max_step, did you mean --trainer.max_steps?"),
        (
            (*TOY, "--model.steps.num_step", "4"),
            "there is no option --model.steps.num_step, did you mean --model.steps.num_steps?",
        ),
        ((*TOY, "--scoring.num_caption=3"), "there is no option --scoring.num_caption, did you mean --scoring.num_cap"),
        (("generate", "x", "--step", "3"), "there is no option --step, did you mean --steps?"),
        (("distill", "tiny", "--update", "3"), "there is no option --update, did you mean --updates?"),
        (
            (*TOY, "--trainer.callbacks", "ModelCheckpont"),
            'there is no class "ModelCheckpont", did you mean ModelCheck',
        ),
        ((*TOY, "--model.widht", "3"), "there is no option --model.widht, did you mean --model.width?"),
        (("fit", "toy.yaml", "--run", "run"), "toy.yaml is a configuration; write --config toy.yaml"),
        (("fit", "demo", "--run", "run"), "demo is a configuration; write --config demo"),
        (("fit", "--run", "run"), "data and model must be set; name a recipe, such as --config demo"),
        ((*TOY, "--trainer.max_steps"), "--trainer.max_steps has no value; give it one, or leave it out"),
        ((*TOY, "--model", "nopkg.Net"), 'there is no module "nopkg" where Python looks'),
    ],
)
def test_what_was_meant_is_said(refused, words, text):
    assert text in refused(*words)


def test_all_that_the_parser_refuses_is_said_at_once(refused):
    words = ("--trainer.max_step", "3", "--model.width", "x", "--data.nothing=1", "--model.weighting", "BSAA")
    assert refused(*TOY, *words).startswith("4 mistakes: (1) ")


def test_all_that_constructors_refuse_is_said_at_once_and_the_used_folder_last(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "environment.json").write_text("{}")
    (tmp_path / "run" / "metrics.csv").write_text("step\n")
    numbers = ("--model.weighting.gamma", "-1", "--model.steps.num_steps", "3", "--model.width", "0")
    text = refused(*TOY, *numbers, "--trainer.gradient_clip_val", "-1", "--seed_everything", "-1")
    assert text.startswith("6 mistakes: (1) seed_everything is -1")
    for name in ("model.weighting.gamma is -1.0", "model.steps.num_steps is 3", "model.width is 0", "clip_val is -1"):
        assert f") {name}" in text.replace("trainer.gradient_", "")
    assert text.rpartition("(6) ")[2].startswith("run is run, which holds a run already")


def test_file_and_line_are_named(refused, tmp_path):
    (tmp_path / "mine.yaml").write_text("# mine\ntrainer: {max_stps: 3}\nmodel:\n  init_args:\n    widht: 3\nrum: x\n")
    text = refused(*TOY, "--config", "mine.yaml")
    assert "--trainer.max_stps, did you mean --trainer.max_steps? (mine.yaml, line 2)" in text
    assert "--model.widht, did you mean --model.width? (mine.yaml, line 5)" in text
    assert "--rum, did you mean --run? (mine.yaml, line 6)" in text
    (tmp_path / "mine.yaml").write_text("model:\n  init_args:\n    weighting: {init_args: {gamma: -2.0}}\n")
    assert refused(*TOY, "--config", "mine.yaml").endswith("(mine.yaml, line 3)")


def test_settings_are_found_where_they_are_written(tmp_path):
    (tmp_path / "a.yaml").write_text("model:\n  class_path: A\n  init_args: {b: 1}\n")
    found = places(["fit", "--config", str(tmp_path / "a.yaml"), "--model.b=2", "--c-d", "3", "--plan"])
    assert [(place.name, place.value, place.line) for place in found] == [
        *(("model", "", 1), ("model", "A", 2), ("model", "", 3), ("model.b", "1", 3)),
        *(("model.b", "2", 0), ("c_d", "3", 0), ("plan", "", 0)),
    ]
    assert yaml_settings("a: [") == []


def test_what_a_refused_setting_causes_is_not_said():
    mistakes = Mistakes(["fit"])
    clips = mistakes.make(Soundscapes, num_clips=0)
    mistakes.make(ScoringSettings, clips=clips, num_captions=0)
    with pytest.raises(UserError) as caught:
        mistakes.refuse()
    assert str(caught.value).startswith("2 mistakes: (1) num_clips is 0")
    assert "(2) num_captions is 0" in str(caught.value)


def test_a_setting_is_taken_out_alone():
    content = {"model": {"class_path": "A", "init_args": {"b": {"c": 1, "d": 2}, "e": 3}}, "x": 1}
    assert without_setting(content, "model.b.c") == {
        "model": {"class_path": "A", "init_args": {"b": {"d": 2}, "e": 3}},
        "x": 1,
    }
    assert without_setting(content, "x") == {"model": content["model"]}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ("--config", "piece.yaml", "--config", "toy.yaml"),
            "--config piece.yaml sets model.width before --config toy",
        ),
        (
            ("--model.width", "3", "--config", "toy.yaml"),
            "--model.width sets model.width before --config toy.yaml names",
        ),
        (
            ("--config", "toy.yaml", "--model.weighting.gamma", "3", "--model.weighting", "MinSNR"),
            "--model.weighting.gamma sets model.weighting.gamma before --model.weighting names MinSNR",
        ),
        (
            ("--wandb", "offline", "--config", "toy.yaml"),
            "--wandb comes before --config toy.yaml, which sets wandb again",
        ),
        (
            ("--config", "prepare.yaml"),
            "prepare.yaml, a configuration for lightning prepare, not for lightning fit: it",
        ),
    ],
)
def test_pieces_without_effect_are_refused(refused, tmp_path, words, text):
    (tmp_path / "piece.yaml").write_text("model: {init_args: {width: 3}}\n")
    (tmp_path / "prepare.yaml").write_text("clips: Soundscapes\nout: x\n")
    assert text in refused("fit", *words, "--run", "run")


def test_defaults_before_a_recipe_are_said_to_be_replaced(refused, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("checkpoint_every: 7\n")
    refused("fit", "--config", "mine.yaml", "--config", "toy.yaml", "--run", "run", "--trainer.max_steps", "x")
    refuse_wrong_order(["fit", "--config", "mine.yaml", "--config", "toy.yaml"])
    assert "mine.yaml comes before --config toy.yaml, which sets checkpoint_every again" in capsys.readouterr().err
    refuse_wrong_order(["fit", "--config", "toy.yaml", "--config", "mine.yaml"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "config", "text"),
    [
        ("fit", "predict", "model is Generation, which lightning fit cannot use: it is for lightning predict"),
        ("predict", "fine-tune", "model is Denoising, which lightning predict cannot use: it is for lightning fit and"),
        ("test", "fine-tune", "lightning score --model RUN scores a teacher alone"),
    ],
)
def test_the_command_that_fits_a_recipe_is_named(monkeypatch, capsys, tmp_path, command, config, text):
    words = ["--config", config, "--run", str(tmp_path / "run"), "--wandb", "disabled"]
    monkeypatch.setattr(sys, "argv", ["lightning", command, *words])
    assert main() == 2
    assert text in capsys.readouterr().err


def test_a_setting_of_two_values_is_refused(refused):
    words = ("distill", "tiny", "--captions", "toy.yaml", "--steps", "4", "1", "--out", "o", "--updates", "3")
    text = refused(*words, "--settings", "{model.init_args.plan.updates: 9}")
    assert "settings has model.init_args.plan.updates = 9" in text
    assert "says 3; give one of the two" in text


def test_a_module_of_ones_own_is_made_once(monkeypatch, tmp_path):
    """Its settings are not tried before, as those of our modules are, since nothing would end its constructor."""
    made, init = [], ToyModule.__init__

    @functools.wraps(init)
    def noted(self, *args, **kwargs):
        made.append(torch.initial_seed())
        init(self, *args, **kwargs)

    monkeypatch.setattr(ToyModule, "__init__", noted)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(TOY_CONFIG)
    monkeypatch.setattr(sys, "argv", ["lightning", *TOY])
    assert main() == 0
    assert made == [0]


def test_nothing_is_fetched_in_place_of_a_wrong_setting(monkeypatch, tmp_path):
    """The other settings are tried with the published weights, which is what the setting is without a value."""
    refuse_network(monkeypatch)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mistakes = Mistakes(())
    mistakes.make(VGGish, weights=tmp_path / "typo.pth")
    assert len(mistakes.sentences) == 1
    with without_networks():
        for fetches, *settings in ((VGGish,), (fetch_model, "somebody/model"), (HuggingFaceDataset, "somebody/set")):
            with pytest.raises(NotLoadedError):
                fetches(*settings)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--model.plan.start_steps", "7"], "7 steps cannot be halved to 1"),
        (["--model.method", "SegmentedConsistency"], "ema_decay is None"),
        (["--trainer.num_nodes", "0"], "`num_nodes` must be a positive integer"),
    ],
)
def test_a_mistake_elsewhere_comes_before_embeddings_are_fetched(monkeypatch, capsys, tmp_path, words, text):
    refuse_network(monkeypatch)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    demo = ["fit", "--config", "demo", "--run", str(tmp_path / "run"), "--wandb", "disabled", *words]
    vggish = ["--scoring.num_captions", "0", "--scoring.embeddings", "[{class_path: VGGish}]"]
    monkeypatch.setattr(sys, "argv", ["lightning", *demo, *vggish])
    assert main() == 2
    told = capsys.readouterr().err
    assert text in told
    assert "num_captions is 0" in told
    assert "VGGish" not in told
    assert list(tmp_path.iterdir()) == []
