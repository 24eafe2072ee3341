"""A list of recordings, some of them broken, and what is kept when it changes."""

import json
from random import Random

import numpy as np
import pytest
import soundfile
import torch
from list_faults import line, tone
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.data import prepare
from bsa_lightning.data.captions import TangoManifest
from bsa_lightning.data.clips import Subset
from bsa_lightning.data.datamodule import Prepared
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.evaluation.reference import TangoTestSet

RATE = 16_000


def made(folder, teacher_folder, clips, **settings):
    return prepare_folder(clips, folder, str(teacher_folder), **({"batch_size": 4, "shard_size": 3} | settings))


def listed(folder, names, **settings):
    text = "".join(line(name, f"Sound {name}") for name in names)
    (folder / "list.jsonl").write_text(text)
    return TangoManifest(folder / "list.jsonl", folder / "audio", **settings)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def clips_of(folder):
    index = json.loads((folder / "index.json").read_text())
    texts = [json.loads((folder / file["file"]).with_suffix(".json").read_text()) for file in index["files"]]
    return [name for shard in texts for name in shard["ids"]]


@pytest.fixture
def recordings(tmp_path):
    names = [f"c{i}.wav" for i in range(8)]
    for name in names:
        tone(tmp_path / "audio" / name, Random(name), seconds=0.5)
    return names


def test_all_broken_files_are_named_at_once_before_anything_is_encoded(
    recordings, teacher_folder, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(prepare, "write_shard", lambda *_, **__: pytest.fail("encoded"))
    for name in ("c1.wav", "c4.wav"):
        (tmp_path / "audio" / name).write_bytes(b"RIFF")
    soundfile.write(tmp_path / "audio" / "c6.wav", np.zeros(0), RATE)
    with pytest.raises(UserError) as error:
        made(tmp_path / "out" / "store", teacher_folder, listed(tmp_path, recordings))
    assert "lists 8 clips of which 3 cannot be used: " in str(error.value)
    assert all(name in str(error.value) and name in caplog.text for name in ("c1.wav", "c4.wav", "c6.wav"))
    assert not (tmp_path / "out").exists()


def test_broken_files_count_as_missing_ones_do(recordings, teacher_folder, tmp_path, caplog):
    (tmp_path / "audio" / "c4.wav").write_bytes(b"RIFF")
    (tmp_path / "audio" / "c5.wav").unlink()
    with pytest.raises(UserError, match=r"8 clips of which 2 cannot be used \(and 1 are missing on disk\)"):
        made(tmp_path / "store", teacher_folder, listed(tmp_path, recordings, max_missing=0.125))
    clips = listed(tmp_path, recordings, max_missing=0.25)
    assert made(tmp_path / "store", teacher_folder, clips) == 6
    assert clips_of(tmp_path / "store") == ["c0.wav", "c1.wav", "c2.wav", "c3.wav", "c6.wav", "c7.wav"]
    assert "1 of 7 recordings cannot be read and were left out: c4.wav" in caplog.text
    Prepared(str(tmp_path / "store"), clips, str(teacher_folder)).make()
    before = contents(tmp_path / "store")
    assert made(tmp_path / "store", teacher_folder, clips) == 6
    assert contents(tmp_path / "store") == before


def test_what_becomes_of_recordings_is_counted(recordings, teacher_folder, tmp_path, caplog):
    sound = 0.5 * np.sin(np.arange(RATE // 2))
    soundfile.write(tmp_path / "audio" / "c1.wav", np.zeros(RATE // 2), RATE)
    soundfile.write(tmp_path / "audio" / "c2.wav", np.stack([0 * sound, sound], axis=1), RATE)
    soundfile.write(tmp_path / "audio" / "c3.wav", np.clip(4 * sound, -1, 1), RATE)
    made(tmp_path / "store", teacher_folder, listed(tmp_path, recordings))
    assert "2 of 8 recordings are silent: c1.wav, c2.wav" in caplog.text
    other = (
        "1 of 8 recordings are silent in the channels that are heard but not in others; set the clips' channels to mean"
    )
    assert other in caplog.text
    assert "1 of 8 recordings are clipped: c3.wav" in caplog.text
    assert "8 of 8 recordings are longer than a clip, of which the first 0.32 s are used" in caplog.text
    assert "; 1.4 s of 4.0 s (36%) are left out: c0.wav, c1.wav, c2.wav, ..." in caplog.text
    caplog.clear()
    made(tmp_path / "mean", teacher_folder, listed(tmp_path, recordings, channels="mean"))
    assert "1 of 8 recordings are silent: c1.wav" in caplog.text
    assert "in the channels that are heard" not in caplog.text


def test_another_way_to_hear_the_files_is_another_store(recordings, teacher_folder, tmp_path):
    first, mean = listed(tmp_path, recordings), listed(tmp_path, recordings, channels="mean")
    assert first.fingerprint() != mean.fingerprint()
    made(tmp_path / "store", teacher_folder, first)
    with pytest.raises(UserError, match="was prepared before with other channels"):
        made(tmp_path / "store", teacher_folder, mean)


CHANGES = {
    "one removed": ([0, 1, 2, 3, 5, 6, 7, 8, 9], [[0, 1, 2], [6, 7, 8], [9]]),
    "the first removed": ([1, 2, 3, 4, 5, 6, 7, 8, 9], [[3, 4, 5], [6, 7, 8], [9]]),
    "one added in front": ([10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]),
    "some added at the end": (list(range(14)), [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]),
    "shards in another order": ([6, 7, 8, 0, 1, 2], [[6, 7, 8], [0, 1, 2]]),
    "backwards": (list(range(10))[::-1], [[9]]),
    "all others": ([10, 11, 12, 13], []),
}


@pytest.mark.parametrize("name", CHANGES)
def test_shards_whose_clips_stay_together_are_kept(teacher_folder, tmp_path, name, monkeypatch):
    places, kept = CHANGES[name]
    clips = ToyClips(14)
    store, fresh = tmp_path / "store", tmp_path / "fresh"
    made(store, teacher_folder, Subset(clips, range(10)))
    before = contents(store)
    written = []
    original = prepare.write_shard

    def write(path, encoded, *, ids):
        written.append([int(name.split("-")[1]) for name in ids])
        return original(path, encoded, ids=ids)

    monkeypatch.setattr(prepare, "write_shard", write)
    made(store, teacher_folder, Subset(clips, places))
    assert sorted(i for some in (*written, *kept) for i in some) == sorted(places)
    assert clips_of(store) == [f"toy-{i}" for i in places]
    stay = {content for file, content in before.items() if file.startswith("shard-") and file.endswith(".safetensors")}
    assert len(stay & set(contents(store).values())) == len(kept)
    assert not [
        path for path in store.glob("shard-*.safetensors") if path.name not in (store / "index.json").read_text()
    ]
    made(fresh, teacher_folder, Subset(clips, places))
    ours, theirs = LatentReader(store), LatentReader(fresh)
    ours.verify()
    assert ours.index["clips"] == theirs.index["clips"] == Subset(clips, places).fingerprint()
    for i in range(len(places)):
        assert ours[i].captions == theirs[i].captions
        assert (ours[i].mean - theirs[i].mean).abs().max() < 1e-3  # batches differ


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_killed_half_way_the_old_store_is_whole_and_the_end_is_the_same(teacher_folder, tmp_path, monkeypatch, stop):
    clips = ToyClips(14)
    old, new = Subset(clips, range(10)), Subset(clips, [1, 2, 10, 11, 12, 6, 7, 8, 3, 13])
    undisturbed, store = tmp_path / "undisturbed", tmp_path / "store"
    for folder in (undisturbed, store):
        made(folder, teacher_folder, old)
    made(undisturbed, teacher_folder, new)
    original, count = prepare.write_shard, []

    def killed(path, *rest, **named):
        if len(count) == stop:
            raise KeyboardInterrupt
        count.append(path)
        return original(path, *rest, **named)

    monkeypatch.setattr(prepare, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        made(store, teacher_folder, new)
    LatentReader(store).verify()
    Prepared(str(store), old, str(teacher_folder)).make()
    monkeypatch.setattr(prepare, "write_shard", original)
    made(store, teacher_folder, new)
    assert contents(store) == contents(undisturbed)


def test_other_captions_are_other_shards(teacher_folder, tmp_path, recordings):
    made(tmp_path / "store", teacher_folder, listed(tmp_path, recordings))
    text = (tmp_path / "list.jsonl").read_text().replace("Sound c4.wav", "Rain")
    (tmp_path / "list.jsonl").write_text(text)
    made(tmp_path / "store", teacher_folder, TangoManifest(tmp_path / "list.jsonl", tmp_path / "audio"))
    reader = LatentReader(tmp_path / "store")
    assert [reader[i].captions for i in (3, 4)] == [["Sound c3.wav"], ["Rain"]]


def test_nothing_is_written_beside_the_folder_and_none_is_left_by_a_refusal(teacher_folder, tmp_path):
    made(tmp_path / "store", teacher_folder, ToyClips(3))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".lock").write_text("mine")
    (tmp_path / "mine" / "a").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no prepared latents"):
        made(tmp_path / "mine", teacher_folder, ToyClips(3))
    assert contents(tmp_path / "mine") == {".lock": b"mine", "a": b"mine"}
    with pytest.raises(UserError, match="is not a folder"):
        made(tmp_path / "mine" / "a" / "b", teacher_folder, ToyClips(3))


def test_a_subset_is_its_clips_in_another_order(tmp_path, recordings):
    listed(tmp_path, [*recordings, "gone.wav"], max_missing=0.2)
    clips = TangoTestSet(tmp_path / "list.jsonl", tmp_path / "audio", max_missing=0.2)
    subset = Subset(clips, [5, 2])
    size = {"sample_rate": RATE, "num_samples": 100}
    assert [subset.id(i) for i in range(len(subset))] == ["c5.wav", "c2.wav"]
    assert subset.missing == clips.missing == ["gone.wav"]
    for i, place in enumerate([5, 2]):
        assert subset.captions(i) == clips.captions(place)
        assert torch.equal(subset.waveform(i, **size), clips.waveform(place, **size))
        sound, rate = subset.recorded(i)
        assert torch.equal(sound, clips.recorded(place)[0])
        assert rate == RATE
        assert subset.inspect(i, seconds=0.1).cut
    with pytest.raises(UserError, match="of which 2 cannot be used"):
        subset.check_unreadable({"c5.wav": "broken"})


def test_two_clips_of_one_id_are_refused_with_both_places(teacher_folder, tmp_path):
    class Twice(ToyClips):
        def id(self, i):
            return f"toy-{i % 3}"

    with pytest.raises(UserError, match='clip 0 and clip 3 are both the clip "toy-0"'):
        made(tmp_path / "store", teacher_folder, Twice(5))
    assert not (tmp_path / "store").exists()
