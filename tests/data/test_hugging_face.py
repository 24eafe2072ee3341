"""Clips of the datasets library: Parquet, saved folders, streams. Nothing here reaches the hub."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch

from bsa_lightning.cli.as_config import as_config
from bsa_lightning.common.errors import UserError
from bsa_lightning.data.hugging_face import HuggingFaceDataset
from bsa_lightning.data.recordings import BrokenSourceError, Columns

datasets = pytest.importorskip("datasets", reason="the extra datasets is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="the extra datasets is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="the extra datasets is not installed")

SIZE = {"sample_rate": 16_000, "num_samples": 800}
NUM_ROWS = 7


def sound(pitch, *, rate=16_000, num_channels=1, kind="WAV"):
    content = io.BytesIO()
    wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(rate // 20) / rate)
    soundfile.write(content, np.stack([wave] * num_channels, axis=1), rate, format=kind)
    return content.getvalue()


def table(**changes):
    rows = {
        "audio": [{"bytes": sound(200 + 100 * i), "path": f"{i % 2}.wav"} for i in range(NUM_ROWS)],
        "caption": [f"Tone {i}" for i in range(NUM_ROWS)],
        "more": [[f"Pitch {i}", "A hum"] for i in range(NUM_ROWS)],
        "key": [f"clip {i}" for i in range(NUM_ROWS)],
        "number": list(range(10, 10 + NUM_ROWS)),
        **changes,
    }
    text, number = datasets.Value("string"), datasets.Value("int64")
    kinds = {"audio": datasets.Audio(), "caption": text, "more": datasets.List(text), "key": text, "number": number}
    # Arrow's own table, since the library's encoding of sound needs torchcodec
    return pyarrow.Table.from_pydict(rows, schema=datasets.Features(kinds).arrow_schema)


@pytest.fixture
def folder(tmp_path):
    """A data set as the hub has it, with two splits and row groups of two rows."""
    (tmp_path / "set" / "data").mkdir(parents=True)
    parquet.write_table(table(), tmp_path / "set" / "data" / "train-00000-of-00001.parquet", row_group_size=2)
    parquet.write_table(table().slice(0, 3), tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
    return tmp_path / "set"


def changed(folder, **changes):
    parquet.write_table(table(**changes), folder / "data" / "train-00000-of-00001.parquet")
    return str(folder)


def heard(clips):
    return torch.stack([clips.waveform(i, **SIZE) for i in range(len(clips))])


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_are_clips(folder, streaming):
    clips = HuggingFaceDataset(str(folder), streaming=streaming)
    assert [clips.id(i) for i in range(len(clips))] == [f"train/{i}" for i in range(NUM_ROWS)]
    assert clips.captions(3) == ["Tone 3"]
    pitches = heard(clips).double().diff().sign().diff().ne(0).sum(1)  # turning points
    assert pitches.tolist() == sorted(pitches.tolist())
    assert len(set(pitches.tolist())) == NUM_ROWS
    assert len(HuggingFaceDataset(str(folder), split="test", streaming=streaming)) == 3


@pytest.mark.parametrize("streaming", [False, True])
def test_columns_are_named(folder, streaming):
    columns = Columns(captions=["caption", "more"], id="number")
    clips = HuggingFaceDataset(str(folder), columns=columns, streaming=streaming)
    assert (clips.id(0), clips.captions(0)) == ("10", ["Tone 0", "Pitch 0", "A hum"])


def test_a_stream_is_the_data_set_in_any_order_and_from_any_thread(folder):
    clips, stream = (HuggingFaceDataset(str(folder), streaming=streaming) for streaming in (False, True))
    expected = heard(clips)
    for i in (6, 0, 3, 3, 2, 5):
        assert torch.equal(stream.waveform(i, **SIZE), expected[i])
    assert torch.equal(heard(pickle.loads(pickle.dumps(stream))), expected)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: stream.waveform(i % NUM_ROWS, **SIZE), range(40)))
    assert all(torch.equal(wave, expected[i % NUM_ROWS]) for i, wave in enumerate(found))


def test_a_stream_is_read_once_from_its_beginning_to_its_end(folder, monkeypatch):
    starts = []
    stream = HuggingFaceDataset(str(folder), streaming=True)
    kind = type(stream._sounds._rows)
    start = kind.__iter__
    monkeypatch.setattr(kind, "__iter__", lambda rows: starts.append(rows) or start(rows))
    heard(stream)
    assert len(starts) == 1


@pytest.mark.parametrize("streaming", [False, True])
def test_saved_folders_and_single_files(folder, tmp_path, streaming):
    expected = heard(HuggingFaceDataset(str(folder)))
    rows = datasets.Dataset(table())
    rows.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=rows, test=rows.select(range(2))).save_to_disk(tmp_path / "splits")
    for path in ("saved", "splits", "set/data/train-*.parquet"):
        assert torch.equal(heard(HuggingFaceDataset(str(tmp_path / path), streaming=streaming)), expected)
    assert len(HuggingFaceDataset(str(tmp_path / "splits"), split="test", streaming=streaming)) == 2
    with pytest.raises(UserError, match="its splits are train, test"):
        HuggingFaceDataset(str(tmp_path / "splits"), split="val", streaming=streaming)


def test_plain_bytes_mixed_rates_and_channels(tmp_path):
    sounds = [sound(300), sound(300, rate=44_100, num_channels=2), sound(300, rate=22_050, kind="FLAC")]
    rows = pyarrow.Table.from_pydict({"audio": sounds, "caption": ["A tone"] * 3})
    parquet.write_table(rows, tmp_path / "x.parquet")
    clips = HuggingFaceDataset(str(tmp_path / "x.parquet"))
    waves = heard(clips)
    assert (waves - waves[0]).abs()[:, :700].max() < 0.05  # resampling differs at the end
    assert clips.inspect(1, seconds=0.01).cut


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"split": "val"}, r"cannot open .* split val \((Unknown|Bad) split"),
        ({}, {"config": "other"}, "BuilderConfig 'other' not found"),
        ({}, {"columns": Columns(audio="sound")}, "has no column sound .it has audio, caption, more, key, number"),
        ({}, {"columns": Columns(captions="number")}, "row 0 has a clip without a caption"),
        ({"caption": [*["A"] * 6, None]}, {}, "row 6 has a clip without a caption"),
        ({"caption": [*["A"] * 6, " "]}, {}, "row 6 has a clip without a caption"),
        ({"more": [*[["A"]] * 6, []]}, {"columns": Columns(captions="more")}, "row 6 has a clip without a caption"),
        ({"more": [*[["A"]] * 6, ["B", None]]}, {"columns": Columns(captions="more")}, "row 6 has a clip without"),
        ({"key": [*"abcdef", "b"]}, {"columns": Columns(id="key")}, 'row 1 and .* row 6 are both the clip "b"'),
        ({"key": [*"abcdef", None]}, {"columns": Columns(id="key")}, 'row 6 has a clip without a text in "key"'),
    ],
)
def test_mistakes_are_one_sentence(folder, streaming, changes, settings, message):
    with pytest.raises(UserError, match=message) as error:
        HuggingFaceDataset(changed(folder, **changes), streaming=streaming, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_without_a_sound_count_as_unreadable(folder, streaming):
    sounds = [{"bytes": sound(300), "path": None}] * 5
    rows = [*sounds, None, {"bytes": b"no sound", "path": "x.wav"}]
    clips = HuggingFaceDataset(changed(folder, audio=rows), streaming=streaming)
    with pytest.raises(UserError, match='row 5 has no sound in "audio"'):
        clips.inspect(5, seconds=1.0)
    with pytest.raises(UserError, match=r"row 6 cannot be read as audio \(Format not recognised"):
        clips.inspect(6, seconds=1.0)
    with pytest.raises(UserError, match="7 clips of which 2 cannot be used"):
        clips.check_unreadable({"train/5": "no sound", "train/6": "no audio"})


def test_a_column_that_is_no_sound_is_refused(folder):
    with pytest.raises(UserError, match="cannot open"):
        HuggingFaceDataset(str(folder), columns=Columns(audio="more"))
    stream = HuggingFaceDataset(str(folder), columns=Columns(audio="more"), streaming=True)
    with pytest.raises(BrokenSourceError, match="row 0 cannot be read"):  # and not as one broken recording
        stream.inspect(0, seconds=1.0)


@pytest.mark.parametrize("path", ["nobody/nothing", "not/a/folder", "none.parquet"])
def test_what_is_not_there_is_one_sentence_offline(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"the datasets library cannot open {path}") as error:
        HuggingFaceDataset(path)
    assert "\n" not in str(error.value)


def test_the_settings_are_recorded_with_a_run(folder):
    settings = as_config(HuggingFaceDataset(str(folder), columns=Columns(id="key")))["init_args"]
    assert settings["path"] == str(folder)
    assert settings["columns"] == {"audio": "audio", "captions": "caption", "id": "key"}


def test_a_data_set_with_other_sound_is_another(folder):
    """Equal ids and captions, as a store of the user's cache would be taken for."""
    before = HuggingFaceDataset(str(folder))
    state = before.sound_state()
    assert HuggingFaceDataset(str(folder)).sound_state() == state
    after = HuggingFaceDataset(changed(folder, audio=[{"bytes": sound(900), "path": "a.wav"}] * NUM_ROWS))
    assert after.fingerprint() == before.fingerprint()
    assert after.sound_state() != state
