import os
from random import Random

import pytest
from list_faults import tone

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.audio_folder import AudioFolder, normal


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "train/a.wav", "train/b.wav", "test/b.wav", "test/c.flac", "16k/val/d.wav", ".x/e.wav"):
        tone(tmp_path / name, Random(0))
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "test" / "f.wav").symlink_to("nothing")
    os.mkfifo(tmp_path / "test" / "g.wav")
    (tmp_path / "test" / "h.wav").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("a.wav", "a.wav"),
        ("train/a.wav", "train/a.wav"),
        ("x/train/a.wav", "train/a.wav"),
        ("x/a.wav", "a.wav"),
        ("/data/test/b.wav", "test/b.wav"),
        ("C:\\data\\test\\b.wav", "test/b.wav"),
        ("data/c.wav", "test/c.flac"),
        ("c", "test/c.flac"),
        ("val/d.mp3", "16k/val/d.wav"),
        ("test/a.wav", "a.wav"),  # lies in no folder of its own, but where all lay before there were folders
        ("test/d.wav", None),  # its folder is here and it is not in it
        ("e.wav", None),
        ("f.wav", None),
        ("g.wav", None),
        ("h.wav", None),
        ("../../a.wav", "a.wav"),
    ],
)
def test_the_longest_ending_that_is_here_decides(folder, location, found):
    assert AudioFolder(folder).find(location) == found


def test_two_files_that_fit_equally_well_are_named(folder):
    with pytest.raises(UserError, match=r'"b.wav" may be test/b.wav or train/b.wav in .*; rename one of'):
        AudioFolder(folder).find("b.wav")


def test_a_time_is_no_suffix(folder):
    tone(folder / "id_30.wav", Random(0))
    assert AudioFolder(folder).find("id_30.5") is None
    assert AudioFolder(folder).find("id_30") == "id_30.wav"


@pytest.mark.parametrize(
    ("location", "parts"), [("./a//b.wav", ("a", "b.wav")), ("x/../e\u0301.wav", ("\u00e9.wav",)), ("..", ())]
)
def test_paths_are_compared_in_one_form(location, parts):
    assert normal(location) == parts
