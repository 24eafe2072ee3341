"""Captions beyond a text encoder's length: cut where it ends, and said so once."""

import json
import logging
import shutil

import audioldm_models
import pytest
import stable_audio_model
import torch
from audioldm_models import edit
from tolerances import FLOAT32

from bsa_lightning.models import tokens
from bsa_lightning.models.loading import load_conditioner

NO_LENGTH = 10**30
"""What a tokenizer says whose files tell no length."""


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch):
    monkeypatch.setattr(tokens, "_warned", set())


@pytest.fixture(scope="module")
def folders(tmp_path_factory, teacher_folder):
    root = tmp_path_factory.mktemp("families")
    return {
        "tango": teacher_folder,
        "audioldm": audioldm_models.write_audioldm(root / "audioldm"),
        "audioldm2": audioldm_models.write_audioldm2(root / "audioldm2"),
        "stable_audio": stable_audio_model.write_model(root / "stable_audio", teacher_folder),
    }


def conditioner_of(folder, tmp_path, length, *tokenizers):
    whole = shutil.copytree(folder, tmp_path / "model")
    for name in tokenizers or ("tokenizer",):
        edit(whole / name / "tokenizer_config.json", model_max_length=length)
    return load_conditioner(whole)


@pytest.mark.parametrize(
    ("family", "caption", "num_tokens", "cut"),
    [
        ("tango", "a dog barks rain in the rain", 8, "barks rain in the rain"),  # two words and the end
        ("audioldm", "a dog", 7, "dog"),  # a letter, a space, start and end: letters are the tokens
        ("audioldm2", "rain", 6, "in"),
        ("stable_audio", "a dog barks rain in the rain", 8, "barks rain in the rain"),
    ],
)
def test_a_caption_that_is_too_long_is_cut_and_said_so_once(
    folders, tmp_path, caplog, family, caption, num_tokens, cut
):
    longest = {"tango": 3, "audioldm": 4, "audioldm2": 4, "stable_audio": 3}[family]
    conditioner = conditioner_of(folders[family], tmp_path, longest)
    conditioner = conditioner.clap if family == "audioldm2" else conditioner
    with caplog.at_level(logging.WARNING, logger=tokens.__name__):
        long = conditioner([caption, caption])
        conditioner([caption])
    (record,) = [record for record in caplog.records if record.name == tokens.__name__]
    text = record.getMessage()
    assert text.startswith(f'the caption "{caption}" has {num_tokens} tokens, but the ')
    assert text.endswith(f'reads {longest}: it is cut before "{cut}"')
    kept = conditioner([caption.removesuffix(cut)]).tensors
    for key, tensor in long.tensors.items():
        torch.testing.assert_close(tensor[:1], kept[key], **FLOAT32)


def test_two_captions_are_told_apart_and_one_that_fits_is_not_named(folders, tmp_path, caplog):
    conditioner = conditioner_of(folders["tango"], tmp_path, 3)
    with caplog.at_level(logging.WARNING, logger=tokens.__name__):
        conditioner(["a dog barks", "rain", "two birds sing"])
    assert ["a dog barks" in caplog.text, '"rain' in caplog.text, "two birds sing" in caplog.text] == [
        True,
        False,
        True,
    ]


def test_the_built_in_text_encoder_reads_128_tokens(caplog):
    caption = "A long high beep, " * 60
    conditioner = load_conditioner("tiny")
    with caplog.at_level(logging.WARNING, logger=tokens.__name__):
        assert conditioner([caption]).masks["states"].sum() == 128
    assert "reads 128" in caplog.text


@pytest.mark.parametrize(
    ("family", "longest"),
    [
        ("tango", 512),  # T5 counts distances, so that it has no end of its own: Tango's
        ("audioldm", 40),  # RoBERTa has 42 positions, two of which are padding's
        ("stable_audio", 128),  # Stable Audio Open's
    ],
)
def test_a_tokenizer_that_tells_no_length_has_the_encoders(folders, tmp_path, family, longest):
    conditioner = conditioner_of(folders[family], tmp_path, NO_LENGTH)
    caption = "a dog barks " * 300
    assert conditioner.tokens.longest == longest
    assert conditioner.tokens([caption], device="cpu")[0].shape == (1, longest)
    assert all(tensor.isfinite().all() for tensor in conditioner([caption]).tensors.values())


def test_both_encoders_of_audioldm2_stay_within_their_positions(folders, tmp_path):
    """GPT-2 has 64: CLAP's state, two learned ones around each, T5's, and all that it makes but the last."""
    conditioner = conditioner_of(folders["audioldm2"], tmp_path, NO_LENGTH, "tokenizer", "tokenizer_2")
    assert conditioner.clap.tokens.longest == 40
    assert conditioner.t5.tokens.longest == 64 - 5 - (audioldm_models.NUM_GENERATED - 1)
    states = conditioner(["a dog barks " * 100]).tensors
    assert states["states"].shape[1] == conditioner.t5.tokens.longest
    assert all(tensor.isfinite().all() for tensor in states.values())


def test_a_length_beyond_the_encoders_positions_is_not_believed(folders, tmp_path):
    assert conditioner_of(folders["audioldm"], tmp_path, 512).tokens.longest == 40


def test_captions_within_the_length_are_not_cut(folders, caplog):
    config = json.loads((folders["audioldm"] / "tokenizer" / "tokenizer_config.json").read_text())
    conditioner = load_conditioner(folders["audioldm"])
    fitting = "a" * (config["model_max_length"] - 2)
    with caplog.at_level(logging.WARNING, logger=tokens.__name__):
        assert conditioner.tokens([fitting], device="cpu")[0].shape == (1, config["model_max_length"])
    assert not caplog.records
