"""Which files of the two folders are scored, and what is said of the others."""

import json
import os

import numpy as np
import pytest
import soundfile

from bsa_lightning.cli.score import run
from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation import folders as module
from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.folders import score_folders

RATE = 16_000
NAMES = [f"clip-{i}" for i in range(12)]


class Learnt(Embedding):
    """No log-mel statistics: of too few clips it measures nothing."""

    name, metric, fingerprint, sample_rate, num_features = "learnt", "fd_learnt", "learnt-1", RATE, 2

    def num_rows(self, num_samples):
        return -(-num_samples // RATE)

    def forward(self, waveform):
        pytest.fail("embedded")


def write(folder, names, *, seed=0, suffix="wav"):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for name in names:
        soundfile.write(folder / f"{name}.{suffix}", 0.1 * generator.standard_normal(RATE), RATE)
    return folder


@pytest.fixture
def sides(tmp_path):
    return write(tmp_path / "reference", NAMES), write(tmp_path / "generated", NAMES, seed=1)


def test_hidden_files_folders_and_texts_are_passed_over_and_counted(sides, caplog):
    before = score_folders(*sides)
    (sides[0] / "._clip-0.wav").write_bytes(b"of macOS")
    (sides[0] / ".clip-1.ogg").write_bytes(b"hidden")
    (sides[0] / "captions.json").write_text("{}")
    write(sides[0] / "below", ["more"])
    card = score_folders(*sides)
    assert card["scores"] == before["scores"]
    assert (card["num_reference"], card["num_pairs"]) == (12, 12)
    assert (before["num_skipped"], card["num_skipped"]) == (
        {"reference": 0, "generated": 0},
        {"reference": 4, "generated": 0},
    )
    assert (
        "4 entries are hidden or not audio files, and are ignored: ._clip-0.wav, .clip-1.ogg, below, ..." in caplog.text
    )


def test_what_has_no_pair_is_counted_and_named(sides, monkeypatch, caplog):
    monkeypatch.setattr(module, "MOSTLY", 0.9)
    write(sides[1], ["more"])
    card = score_folders(*sides)
    assert card["num_without_pair"] == {"reference": 0, "generated": 1}
    assert "1 generated files have no pair, and count in distances alone: more" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x.ogg", "x.wav"], "holds x.ogg and x.wav, which have the same name without their suffixes"),
        (["x.WAV", "x.wav"], "holds x.WAV and x.wav, which have the same name"),
        (["caf\u00e9.wav", "cafe\u0301.wav"], "holds cafe\u0301.wav and caf\u00e9.wav, which have the same name"),
        ([os.fsdecode(b"caf\xe9.wav")], "holds a file whose name is not UTF-8"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_two_files_of_one_name_are_refused(sides, side, names, message):
    for name in names:
        (sides[side] / name).write_bytes(b"never read")
    with pytest.raises(UserError, match=message):
        score_folders(*sides)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nothing")])
def test_what_is_no_regular_file_is_refused(sides, make):
    make(sides[1] / "x.wav")
    with pytest.raises(UserError, match=r"x.wav is not a regular file"):
        score_folders(*sides)


def test_names_and_formats_of_two_systems_are_paired(sides, tmp_path):
    write(sides[0], ["caf\u00e9"])
    write(sides[1], ["cafe\u0301"], suffix="aiff")
    (tmp_path / "captions.json").write_bytes(
        b"\xef\xbb\xbf" + json.dumps(dict.fromkeys([*NAMES, "café"], "Rain")).encode()
    )
    card = score_folders(*sides, captions=tmp_path / "captions.json")
    assert (card["num_pairs"], card["paired"]) == (13, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"clip-0": "Rain"}', "has no caption for clip-1"),
        (json.dumps(dict.fromkeys(NAMES, " ")), "has a clip without a caption"),
        (json.dumps(dict.fromkeys(NAMES, 3)), "has no caption for clip-0"),
        ('{"clip-0": "Rain", "clip-0": "Wind"}', r'cannot be read as a JSON object \(it has "clip-0" twice\)'),
        ("[]", "it holds no object"),
        (json.dumps(dict.fromkeys(["caf\u00e9", "cafe\u0301"], "Rain")), "names a clip twice"),
    ],
)
def test_captions_are_read_strictly(sides, tmp_path, content, message):
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(UserError, match=message):
        score_folders(*sides, captions=tmp_path / "captions.json")


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (9, r"9 generated clips \(9 rows\) say nothing about a distribution; score at least 10 clips and 50 rows"),
        (12, r"12 reference clips \(12 rows\) say nothing about a distribution"),
    ],
)
def test_too_few_clips_or_rows_are_refused_before_any_is_embedded(sides, clips, message):
    for name in NAMES[clips:]:
        (sides[1] / f"{name}.wav").unlink()
    if clips < len(NAMES):
        write(sides[0], [f"more-{i}" for i in range(50)])
    with pytest.raises(UserError, match=f"nothing can be measured: {message}"):
        score_folders(*sides, embeddings=[Learnt()])


def test_the_other_embeddings_scores_are_kept(sides):
    card = score_folders(*sides, embeddings=[Learnt(), LogMelStatistics()])
    assert set(card["scores"]) == {"fd_logmel", "kad_logmel"}
    assert set(card["without_value"]) == {"fd_learnt", "kad_learnt"}


def test_integers_as_floating_point_numbers_are_refused(sides):
    soundfile.write(sides[1] / "clip-0.wav", np.full(RATE, 20_000.0), RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"clip-0.wav has samples of 20000, where full scale is 1"):
        score_folders(*sides)


def test_short_sounds_padded_with_silence_are_scored_by_what_has_a_value(tmp_path):
    for folder, seed in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        for i in range(12):
            sound = np.zeros(8 * 16_000)
            sound[:1600] = np.random.default_rng((seed, i)).standard_normal(1600) * 0.1
            soundfile.write(tmp_path / folder / f"{i}.wav", sound, 16_000)
    card = score_folders(tmp_path / "a", tmp_path / "b")
    assert card["scores"].keys() == {"fd_logmel"}
    assert card["scores"]["fd_logmel"] > 0
    assert "median distance" in card["without_value"]["kad_logmel"]


@pytest.mark.parametrize("content", ["my notes", "[1]", '{"scores": 1}', ""])
def test_a_card_replaces_a_card_and_nothing_else(tmp_path, content):
    write(tmp_path / "a", NAMES)
    out = tmp_path / "card.json"
    words = ["score", str(tmp_path / "a"), str(tmp_path / "a"), "--out", str(out)]
    out.write_text(content)
    with pytest.raises(UserError, match="which is there and is no card of scores"):
        run(words)
    assert out.read_text() == content
    out.unlink()
    run(words)
    first = out.read_bytes()
    run(words)
    assert out.read_bytes() == first


def test_a_card_never_replaces_a_folder(tmp_path):
    write(tmp_path / "a", NAMES)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"out is .*, which is a folder; name a file"):
        run(["score", str(tmp_path / "a"), str(tmp_path / "a"), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"
