"""Clips as people have them: nested folders, lists of their own, tar files."""

import os
import sys
import time
from random import Random

import pytest
import torch
from list_faults import tone
from source_faults import CLIP, SOURCES, WAV, tar

from bsa_lightning.cli.as_config import as_config
from bsa_lightning.cli.ladder import prepared
from bsa_lightning.common.errors import UserError
from bsa_lightning.data import audio, audio_folder
from bsa_lightning.data.audio_folder import AudioFolder, FoundFile, normal
from bsa_lightning.data.captioned_folder import CaptionedFolder
from bsa_lightning.data.clip_list import ClipList
from bsa_lightning.data.clips import Subset
from bsa_lightning.data.hugging_face import HuggingFaceDataset
from bsa_lightning.data.recordings import Columns
from bsa_lightning.data.tar_shards import WebDataset

SIZE = {"sample_rate": 16_000, "num_samples": 400}


def test_one_id_for_two_files_is_refused_with_both_places(tmp_path):
    with pytest.raises(UserError, match=r'line 2 \(a/1.wav\) and .* line 3 \(b/1.wav\) are both the clip "x"'):
        SOURCES["list: one id for two files"](tmp_path, Random(0)).read()


def test_tar_files_with_the_same_names_are_other_clips(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000.tar").write_bytes(tar(*CLIP))
    clips = WebDataset(str(tmp_path))
    assert [clips.id(i) for i in range(2)] == ["a/000.tar/1", "b/000.tar/1"]
    (tmp_path / "a.wav").write_bytes(WAV)
    assert torch.equal(
        clips.waveform(1, **SIZE),
        audio.fit_length(audio.normalise(audio.read(tmp_path / "a.wav", sample_rate=16_000)), num_samples=400),
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["000.tar", "000.tar", "a", "a.wav", "b"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("x-{008..010}.tar", ["x-008.tar", "x-009.tar", "x-010.tar"]),
        ("x-*.tar", ["x-008.tar", "x-009.tar", "x-010.tar", "x-8.tar"]),
        ("x-{8..8}.tar", ["x-8.tar"]),
    ],
)
def test_patterns_of_tar_files(tmp_path, pattern, found):
    for name in ("x-008.tar", "x-009.tar", "x-010.tar", "x-8.tar"):
        (tmp_path / name).write_bytes(tar(*CLIP))
    clips = WebDataset(str(tmp_path / pattern))
    assert [clips.id(i) for i in range(len(clips))] == [f"{name}/1" for name in found]
    with pytest.raises(UserError, match=r"x-011.tar does not exist"):
        WebDataset(str(tmp_path / "x-{010..011}.tar"))


def test_a_broken_sound_in_a_tar_file_is_named_with_its_member(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar(("1.wav", WAV[:-100]), CLIP[1]))
    clips = WebDataset(str(tmp_path / "x.tar"))
    with pytest.raises(UserError, match=r"x.tar member 1.wav is not whole"):
        clips.inspect(0, seconds=1.0)


def test_many_files_take_one_look_at_each_folder(tmp_path, monkeypatch):
    """A folder is read once, and no file is asked for; a network's file system would take a millisecond for each."""
    names = [f"{folder}/{i}.wav" for folder in "ab" for i in range(20)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in names:
        (tmp_path / name).with_suffix(".txt").write_text("Rain")
    (tmp_path / "list.csv").write_text("audio,caption\n" + "".join(f"{name},Rain\n" for name in names))
    looks = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: looks.append(place) or scan(place))
    assert len(ClipList(tmp_path / "list.csv")) == 40
    assert len(looks) == 2
    assert len(CaptionedFolder(tmp_path)) == 40
    assert len(looks) == 5


def test_many_files_of_one_name_are_looked_up_and_not_compared_each_with_each(tmp_path, monkeypatch):
    """``<id>/audio.wav`` for 10,000 ids takes a fraction of a second; comparing each with each would take minutes."""
    names = [f"x{i}/audio.wav" for i in range(10_000)]
    monkeypatch.setattr(audio_folder, "walk", lambda *_: (FoundFile(normal(name), name) for name in names))
    folder = AudioFolder(tmp_path)
    start = time.process_time()
    assert [folder.find(f"/their/audio/{name}") for name in names] == names
    assert time.process_time() - start < 10


def test_the_settings_of_a_source_are_recorded_with_a_run(tmp_path):
    tone(tmp_path / "a.wav", Random(0))
    (tmp_path / "a.txt").write_text("Rain")
    (tmp_path / "x.tar").write_bytes(tar(*CLIP))
    (tmp_path / "list.csv").write_text("file,caption\na.wav,Rain\n")
    folder = as_config(CaptionedFolder(tmp_path, max_missing=0.5))
    assert folder["init_args"] == {"folder": str(tmp_path), "max_missing": 0.5, "channels": "first"}
    listed = as_config(ClipList(tmp_path / "list.csv", columns=Columns("file")))["init_args"]
    assert listed["columns"] == {"audio": "file", "captions": "caption", "id": None}
    assert listed["root"] is None
    assert as_config(WebDataset(str(tmp_path / "x.tar")))["init_args"]["caption_member"] == "txt"


def test_stores_that_nobody_has_named_are_told_apart_by_the_sound(tmp_path, teacher_folder):
    """Equal ids and captions, and other files: in another folder, or replaced."""
    folders = []
    for name in ("raw", "cleaned"):
        (tmp_path / name).mkdir()
        tone(tmp_path / name / "a.wav", Random(0))
        (tmp_path / name / "a.txt").write_text("Rain")
        folders.append(CaptionedFolder(tmp_path / name))
        (tmp_path / name / "x.tar").write_bytes(tar(*CLIP))
    raw, cleaned = folders
    assert raw.fingerprint() == cleaned.fingerprint()
    store = prepared(raw, teacher_folder).folder
    assert prepared(CaptionedFolder(tmp_path / "raw"), teacher_folder).folder == store
    assert prepared(Subset(raw, [0]), teacher_folder).folder == store
    assert prepared(cleaned, teacher_folder).folder != store
    os.utime(tmp_path / "raw" / "a.wav", (1, 1))
    assert prepared(raw, teacher_folder).folder != store
    tars = [WebDataset(str(tmp_path / name / "x.tar")).sound_state() for name in ("raw", "cleaned", "raw")]
    assert tars[0] == tars[2] != tars[1]


def test_a_separator_of_unicode_is_a_part_of_its_caption(tmp_path):
    text = "Rain\u2028then wind\r\nA dog\n".encode()
    (tmp_path / "x.tar").write_bytes(tar(CLIP[0], (CLIP[1][0], text)))
    assert WebDataset(str(tmp_path / "x.tar")).captions(0) == ["Rain\u2028then wind", "A dog"]


def test_without_the_datasets_library_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the datasets library .*; pip install 'bsa-lightning\[datasets\]'"):
        HuggingFaceDataset("someone/something")


@pytest.mark.parametrize("columns", [{"captions": []}, {"captions": "audio"}, {"id": "caption"}])
def test_columns_that_make_no_sense(columns):
    with pytest.raises(UserError, match=r"columns.* is empty|columns names the column .* twice"):
        Columns(**columns)
