import json

import numpy as np
import pytest
import soundfile
import torch

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.captions import AudioCapsManifest, TangoManifest, read_captions

HEADER = "audiocap_id,youtube_id,start_time,caption\n"


@pytest.fixture
def audio_dir(tmp_path):
    """One clip under each of the three names that AudioCaps' users give them, and one of Tango's."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for name in ("abc_30.wav", "Ydef.flac", "12.ogg", "YghiJ.wav"):
        soundfile.write(folder / name, np.sin(np.arange(800)), 16_000)
    return folder


def write(tmp_path, text, name="list.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_audiocaps_names_and_captions(tmp_path, audio_dir):
    rows = "10,abc,30,A dog barks\n11,def,0,Rain\n12,xyz,5,Wind\n13,abc,30,Barking\n"
    clips = AudioCapsManifest(write(tmp_path, HEADER + rows), audio_dir)
    assert [clips.id(i) for i in range(len(clips))] == ["abc_30", "def_0", "xyz_5"]
    assert clips.captions(0) == ["A dog barks", "Barking"]
    assert clips.missing == []
    assert clips.waveform(2, sample_rate=16_000, num_samples=1000).shape == (1000,)
    stereo = clips.waveform(2, sample_rate=16_000, num_samples=1000, num_channels=2)
    assert torch.equal(stereo, clips.waveform(2, sample_rate=16_000, num_samples=1000).repeat(2, 1))


def test_tango_lines_keep_the_file_name_of_another_machines_path(tmp_path, audio_dir):
    lines = [
        {"location": "/theirs/data/YghiJ.wav", "captions": "A cat"},
        {"location": "elsewhere/Ydef.flac", "captions": ["Rain", "Water"]},
    ]
    clips = TangoManifest(write(tmp_path, "\n".join(map(json.dumps, lines))), audio_dir)
    assert [(clips.id(i), clips.captions(i)) for i in (0, 1)] == [
        ("YghiJ.wav", ["A cat"]),
        ("Ydef.flac", ["Rain", "Water"]),
    ]


def test_a_location_that_leaves_the_folder_is_only_looked_up_in_it(tmp_path, audio_dir):
    soundfile.write(tmp_path / "secret.wav", np.zeros(8), 16_000)
    lines = [{"location": "../secret.wav", "captions": "A"}, {"location": "../YghiJ.wav", "captions": "B"}]
    clips = TangoManifest(write(tmp_path, "\n".join(map(json.dumps, lines))), audio_dir, max_missing=0.5)
    assert (clips.missing, [clips.id(0)]) == (["../secret.wav"], ["YghiJ.wav"])


def test_clips_that_are_found_in_other_folders_by_their_names_are_told(tmp_path, caplog):
    """The folder dogs was not copied, and another clip of that name is among the cats."""
    for name in ("cats/001.wav", "cats/002.wav"):
        (tmp_path / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "audio" / name).touch()
    for prefix in ("", "/their/machine/"):
        lines = [f'{{"location": "{prefix}{name}", "captions": "Rain"}}' for name in ("cats/002.wav", "dogs/001.wav")]
        list_ = write(tmp_path, "\n".join(lines), "list.jsonl")
        caplog.clear()
        assert len(TangoManifest(list_, tmp_path / "audio")) == 2
        assert "1 of 2 clips are not where the list names them" in caplog.text
        assert f"in other folders were taken: {prefix}dogs/001.wav (cats/001.wav)" in caplog.text
    caplog.clear()
    TangoManifest(write(tmp_path, lines[0], "list.jsonl"), tmp_path / "audio")
    assert "other folders" not in caplog.text


def test_missing_clips_are_counted_and_listed_up_to_a_limit(tmp_path, audio_dir, caplog):
    path = write(tmp_path, HEADER + "10,abc,30,A dog\n11,gone,7,Rain\n12,xyz,0,Wind\n")
    with pytest.raises(UserError, match=r"3 clips of which 1 are missing on disk \(gone_7\)"):
        AudioCapsManifest(path, audio_dir)
    clips = AudioCapsManifest(path, audio_dir, max_missing=0.5)
    assert (len(clips), clips.missing) == (2, ["gone_7"])
    assert "1 of 3 clips are missing on disk and are left out: gone_7" in caplog.text


@pytest.mark.parametrize(
    ("manifest", "text", "message"),
    [
        (AudioCapsManifest, "youtube_id,caption\nabc,A dog\n", "has no column audiocap_id, start_time"),
        (AudioCapsManifest, HEADER, "has no rows"),
        (AudioCapsManifest, HEADER + "10,abc,30,\n", "has a clip without a caption"),
        (TangoManifest, "", "is empty"),
        (TangoManifest, '{"location": "a.wav"}', "line 1 has a clip without a caption"),
        (TangoManifest, "[1]", "line 1 is not a JSON object"),
        (TangoManifest, '{"captions": "x"}', "line 1 has a clip without a location"),
        (TangoManifest, '{"location": "YghiJ.wav", "captions": []}', "has a clip without a caption"),
        (TangoManifest, '{"location": "YghiJ.wav", "captions": 3}', "has a clip without a caption"),
        (TangoManifest, '{"location": 3, "captions": "x"}', "line 1 has a clip without a location"),
    ],
)
def test_mistakes_in_a_list(tmp_path, audio_dir, manifest, text, message):
    with pytest.raises(UserError, match=message):
        manifest(write(tmp_path, text), audio_dir)


def test_a_list_in_another_encoding(tmp_path, audio_dir):
    (tmp_path / "latin.csv").write_bytes((HEADER + "1,a,0,Caf\xe9\n").encode("latin-1"))
    with pytest.raises(UserError, match="is not text in UTF-8"):
        AudioCapsManifest(tmp_path / "latin.csv", audio_dir)


def test_missing_list_or_folder(tmp_path, audio_dir):
    with pytest.raises(UserError, match="does not exist"):
        AudioCapsManifest(tmp_path / "none.csv", audio_dir)
    with pytest.raises(UserError, match="no such folder"):
        AudioCapsManifest(write(tmp_path, HEADER + "1,a,0,x\n"), tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "A dog\n\nRain, then wind\n"),
        ("c.csv", 'id,caption\n1,A dog\n2,"Rain, then wind"\n'),
        ("c.ndjson", '{"captions": "A dog"}\n{"captions": "Rain, then wind"}\n'),
        ("c.jsonl", '{"captions": "A dog"}\n{"captions": ["Rain, then wind", "Other"]}\n'),
    ],
)
def test_captions_to_generate_from(tmp_path, name, text):
    assert read_captions(write(tmp_path, text, name)) == ["A dog", "Rain, then wind"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("c.txt", " \n", "is empty"), ("c.csv", "text\nA\n", "no column caption"), ("c.csv", "caption\n", "has no rows")],
)
def test_no_captions(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        read_captions(write(tmp_path, text, name))
