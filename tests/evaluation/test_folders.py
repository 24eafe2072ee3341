import json

import numpy as np
import pytest
import soundfile
import torch
from frechet_rows import rows

from bsa_lightning.cli.score import run
from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation import folders as module
from bsa_lightning.evaluation.embeddings.base import Embedding, Features
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.embeddings.reading import AsAudioldmEval
from bsa_lightning.evaluation.folders import score_folders
from bsa_lightning.evaluation.metrics.divergence import clap_score
from bsa_lightning.evaluation.metrics.frechet import frechet_distance_of_rows

RATE, NUM_CLIPS = 16_000, 16


class Words(Embedding):
    """Four numbers, five classes, and captions."""

    name, metric, fingerprint, caption_metric = "words", "fd_words", "words-1", "words_score"
    sample_rate, num_features, is_classifier = RATE, 4, True

    def forward(self, waveform):
        sections = waveform[:, :12_800].unflatten(1, (4, 4, 800)).square().mean(3).sqrt()
        return Features(sections, sections.sum(2).repeat(1, 2)[:, :5])

    def text(self, captions):
        return torch.stack([rows(1, 4, len(caption))[0] for caption in captions])

    def judge(self, rows, captions):
        return clap_score(rows, captions)


def wave(i, *, seconds=1.0, seed=0):
    generator = np.random.default_rng((seed, i))
    return 0.1 * generator.uniform(0.2, 1) * generator.standard_normal(int(seconds * RATE))


def write(folder, names, *, seed=0, suffix="wav", rate=RATE, seconds=1.0, channels=1):
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        samples = np.stack([wave(i, seconds=seconds, seed=seed) * 0.5**channel for channel in range(channels)], axis=1)
        soundfile.write(folder / f"{name}.{suffix}", samples, rate)
    return folder


NAMES = [f"clip-{i}" for i in range(NUM_CLIPS)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return write(root / "reference", NAMES), write(root / "generated", NAMES, seed=1, seconds=2.5)


def test_scores_are_those_of_the_files(folders):
    card = score_folders(*folders)
    embedding = LogMelStatistics()
    sides = []
    for folder in folders:
        waves = [soundfile.read(folder / f"{name}.wav", dtype="float32")[0] for name in sorted(NAMES)]
        sides.append(torch.cat([embedding(torch.from_numpy(clip)[None]).rows[0] for clip in waves]))
    assert card["scores"]["fd_logmel"] == pytest.approx(float(frechet_distance_of_rows(*sides)), rel=1e-9)
    assert (card["num_reference"], card["num_generated"], card["num_pairs"], card["paired"]) == (16, 16, 16, True)
    assert list(card["scores"]) == ["fd_logmel", "kad_logmel"]


def test_a_folder_against_itself_is_at_zero_whatever_the_format(folders, tmp_path):
    flac = write(tmp_path / "flac", NAMES, suffix="flac")
    card = score_folders(folders[0], flac, embeddings=[Words()])
    assert card["scores"]["fd_words"] == pytest.approx(0, abs=1e-10)
    assert card["scores"]["kl_words"] == pytest.approx(0, abs=1e-5)  # 1e-6 is added to each of five classes
    assert card["sha256"]["reference"] != card["sha256"]["generated"]


def test_captions_give_a_score(folders, tmp_path):
    (tmp_path / "captions.json").write_text(json.dumps({name: "x" * (i + 1) for i, name in enumerate(NAMES)}))
    found = score_folders(*folders, embeddings=[Words()], captions=tmp_path / "captions.json")["scores"]
    waves = [soundfile.read(folders[1] / f"{name}.wav", dtype="float32")[0] for name in NAMES]
    sounds = [Words()(torch.from_numpy(wave)[None]).rows[0] for wave in waves]
    texts = Words().text(["x" * (i + 1) for i in range(NUM_CLIPS)])
    expected = torch.stack(
        [torch.cosine_similarity(a.double(), b[None], dim=1) for a, b in zip(sounds, texts, strict=True)]
    )
    torch.testing.assert_close(found["words_score"], 100 * float(expected.mean()), rtol=1e-6, atol=0)
    assert "words_score" not in score_folders(*folders, embeddings=[Words()])["scores"]
    (tmp_path / "captions.json").write_text('{"clip-0": "x"}')
    with pytest.raises(UserError, match=r"has no caption for clip-1 that is text; it must be JSON such as"):
        score_folders(*folders, embeddings=[Words()], captions=tmp_path / "captions.json")


def test_a_clip_is_beside_its_own_caption_whatever_order_its_file_name_has(tmp_path):
    """Without their suffixes "rain" comes before "rain 1", with them behind it."""
    texts = {name: "x" * (i + 1) for i, name in enumerate(["rain", *(f"rain {i}" for i in range(1, NUM_CLIPS))])}
    sides = [write(tmp_path / side, texts, seed=seed) for seed, side in enumerate(("reference", "generated"))]
    (tmp_path / "captions.json").write_text(json.dumps(texts))
    found = score_folders(*sides, embeddings=[Words()], captions=tmp_path / "captions.json")["scores"]
    waves = [torch.from_numpy(soundfile.read(sides[1] / f"{name}.wav", dtype="float32")[0])[None] for name in texts]
    expected = [
        clap_score(Words()(wave).rows[0], Words().text([text]))
        for wave, text in zip(waves, texts.values(), strict=True)
    ]
    assert found["words_score"] == pytest.approx(float(torch.stack(expected).mean()), rel=1e-6)


@pytest.mark.parametrize("suffix", ["-b", ""])
def test_names_that_differ_are_not_paired(folders, tmp_path, suffix):
    names = [f"{name}{suffix if i else ''}" for i, name in enumerate(NAMES)] + ["more"] * (not suffix)
    other = write(tmp_path / "other", names, seed=1)
    card = score_folders(folders[0], other, embeddings=[Words()])
    assert card["num_pairs"] == (1 if suffix else NUM_CLIPS)
    assert card["num_generated"] == len(names)
    assert not card["paired"]
    assert not {"kl_words", "kl_sigmoid_words"} & card["scores"].keys()
    assert "names are in both folders" in card["without_value"]["kl_words"]


def test_of_nearly_all_pairs_distances_take_all_files_and_divergences_the_pairs(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOSTLY", 0.9)
    other = write(tmp_path / "other", [*NAMES, "more"], seed=1)
    card = score_folders(folders[0], other, embeddings=[Words()])
    assert (card["num_reference"], card["num_generated"], card["num_pairs"], card["paired"]) == (16, 17, 16, True)
    assert card["num_without_pair"] == {"reference": 0, "generated": 1}
    (other / "more.wav").unlink()
    without = score_folders(folders[0], other, embeddings=[Words()])["scores"]
    same = {name for name, value in card["scores"].items() if value == without[name]}
    assert same == {"kl_words", "kl_sigmoid_words"}


def test_a_cache_is_used_and_never_stale(tmp_path, monkeypatch):
    folders = write(tmp_path / "a", NAMES), write(tmp_path / "b", NAMES, seed=1)
    calls, cache = [], tmp_path / "cache"
    forward = Words.forward
    monkeypatch.setattr(Words, "forward", lambda self, wave: calls.append(1) or forward(self, wave))
    first = score_folders(*folders, embeddings=[Words()], cache=cache)
    assert (len(calls), len(list(cache.glob("*.safetensors")))) == (2 * NUM_CLIPS, NUM_CLIPS)
    assert score_folders(*folders, embeddings=[Words()], cache=cache) == first
    assert len(calls) == 3 * NUM_CLIPS
    soundfile.write(folders[0] / "clip-3.wav", 2 * wave(3), RATE)
    changed = score_folders(*folders, embeddings=[Words()], cache=cache)
    assert len(calls) == 4 * NUM_CLIPS + 1
    assert changed["scores"] == score_folders(*folders, embeddings=[Words()])["scores"] != first["scores"]
    monkeypatch.setattr(Words, "fingerprint", "words-2")
    calls.clear()
    score_folders(*folders, embeddings=[Words()], cache=cache)
    assert len(calls) == 2 * NUM_CLIPS
    for path in cache.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:40])
    assert score_folders(*folders, embeddings=[Words()], cache=cache)["scores"] == changed["scores"]


def test_command_prints_and_writes_the_card(folders, tmp_path, capsys):
    words = [str(folder) for folder in folders]
    reading = ["--embeddings.reading", "AsAudioldmEval"]
    run(["score", *words, "--embeddings+", "LogMelStatistics", *reading, "--out", str(tmp_path / "o.json")])
    card = json.loads((tmp_path / "o.json").read_text())
    assert json.loads(capsys.readouterr().out) == card
    assert card["readings"] == {"logmel": "as-audioldm-eval"}
    assert card["embeddings"] == {"logmel": LogMelStatistics.fingerprint}
    assert card["scores"] == score_folders(*folders, embeddings=[LogMelStatistics(AsAudioldmEval())])["scores"]
    assert card["scores"]["fd_logmel"] != score_folders(*folders)["scores"]["fd_logmel"]


def test_mistakes(folders, tmp_path):
    with pytest.raises(UserError, match="does not exist; name a folder of audio files"):
        score_folders(folders[0], tmp_path / "none")
    with pytest.raises(UserError, match="holds no audio"):
        score_folders(folders[0], tmp_path)
    few = write(tmp_path / "few", NAMES[:5])
    (few / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"bad.wav cannot be read as audio"):
        score_folders(folders[0], few)


def test_few_clips_leave_out_the_distances_and_keep_what_is_a_mean_over_clips(folders, tmp_path, caplog):
    sides = [write(tmp_path / side, NAMES[:5], seed=seed) for seed, side in enumerate(("a", "b"))]
    card = score_folders(*sides, embeddings=[Words(), LogMelStatistics()])
    assert set(card["scores"]) == {"kl_words", "kl_sigmoid_words", "fd_logmel", "kad_logmel"}
    why = "5 reference clips (20 rows) say nothing about a distribution; score at least 10 clips and 50 rows"
    why = why.replace("reference", "generated")
    assert card["without_value"] == dict.fromkeys(("fd_words", "kad_words", "is_words"), why)
    assert "fd_words is left out" in caplog.text
    (tmp_path / "captions.json").write_text(json.dumps(dict.fromkeys(NAMES, "Rain")))
    other = write(tmp_path / "other", [f"{name}-b" for name in NAMES[:5]])
    (tmp_path / "others.json").write_text(json.dumps({f"{name}-b": "Rain" for name in NAMES[:5]}))
    unpaired = score_folders(folders[0], other, embeddings=[Words()], captions=tmp_path / "others.json")
    assert set(unpaired["scores"]) == {"words_score"}
    every = {"fd_words", "kad_words", "kadtk_words", "is_words", "fd_words_inf", "kl_words", "kl_sigmoid_words"}
    asked = {"at_infinity": True, "kadtk": True}
    nothing = score_folders(folders[0], other, embeddings=[Words(), LogMelStatistics()], **asked)
    assert set(nothing["scores"]) == {"fd_logmel", "kad_logmel", "kadtk_logmel"}
    assert set(nothing["without_value"]) == every | {"fd_logmel_inf"}
