import json
import resource
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import write_model
from toy_clips import ToyClips

from bsa_lightning.data import latents, prepare
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.errors import UserError
from bsa_lightning.teachers.folder import load_codec, load_conditioner

HALF = {"rtol": 1e-3, "atol": 1e-3}
"""What float16 storage rounds away."""


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def prepare_again(folder, teacher_folder, clips=None, **settings):
    settings = {"batch_size": 4, "shard_size": 9} | settings
    return prepare_folder(ToyClips(24) if clips is None else clips, folder, str(teacher_folder), **settings)


def test_a_row_is_what_codec_and_text_encoder_say(latents_folder, teacher_folder):
    reader, clips = LatentReader(latents_folder), ToyClips(24)
    codec, conditioner = load_codec(teacher_folder), load_conditioner(teacher_folder)
    assert len(reader) == 24
    for i in (0, 8, 9, 23):
        row = reader[i]
        wave = clips.waveform(i, sample_rate=codec.sample_rate, num_samples=codec.num_samples)
        mean, std = codec.encode(wave[None])
        torch.testing.assert_close(row.mean, mean[0], **HALF)
        torch.testing.assert_close(row.std, std[0], **HALF)
        assert row.captions == clips.captions(i)
        for caption, states in zip(row.captions, row.conditioning, strict=True):
            torch.testing.assert_close(states["states"], conditioner([caption]).tensors["states"][0], **HALF)
    null = conditioner.null()
    torch.testing.assert_close(reader.null.tensors["states"], null.tensors["states"])


def test_the_bytes_do_not_depend_on_the_number_of_processes(latents_folder, teacher_folder, tmp_path):
    prepare_again(tmp_path / "two", teacher_folder, devices=2)
    assert contents(tmp_path / "two") == contents(latents_folder)


@pytest.mark.parametrize("kept", ["shard-00000", "shard-00001", ""])
def test_a_killed_prepare_continues_where_it_was(latents_folder, teacher_folder, tmp_path, kept, monkeypatch):
    """Killed between shards, or while a shard was being written."""
    folder = tmp_path / "store"
    folder.mkdir()
    for path in latents_folder.iterdir():
        if path.name == prepare.REQUEST or (kept and path.name.startswith(kept)):
            shutil.copy(path, folder)
    (folder / "shard-00002.safetensors").write_bytes(b"half a shard")
    written = []
    original = prepare.write_shard
    monkeypatch.setattr(
        prepare, "write_shard", lambda path, *rest, **named: written.append(path.stem) or original(path, *rest, **named)
    )
    prepare_again(folder, teacher_folder)
    assert contents(folder) == contents(latents_folder)
    assert written == [name for name in ("shard-00000", "shard-00001", "shard-00002") if name != kept]


def test_run_again_nothing_changes(latents_folder, teacher_folder, monkeypatch):
    before = contents(latents_folder)
    monkeypatch.setattr(prepare, "write_shard", lambda *_, **__: pytest.fail("a whole shard is written again"))
    assert prepare_again(latents_folder, teacher_folder) == 24
    assert contents(latents_folder) == before


@pytest.fixture
def small_disk():
    """No file may grow beyond so many bytes: the system's own error, on its way through whatever library writes."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_no_half_file(teacher_folder, tmp_path, small_disk):
    small_disk(4096)
    with pytest.raises(UserError, match=r"disk of .* is full; free some space and run the same command again"):
        prepare_again(tmp_path / "store", teacher_folder)
    small_disk(resource.RLIM_INFINITY)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [prepare.REQUEST]
    assert prepare_again(tmp_path / "store", teacher_folder) == 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": ToyClips(24, "other")}, "prepared with another clips"),
        ({"shard_size": 5}, "prepared with another shard_size"),
        ({"teacher": True}, "prepared with another codec, conditioner"),
    ],
)
def test_another_request_is_refused_and_damages_nothing(latents_folder, teacher_folder, tmp_path, change, message):
    before = contents(latents_folder)
    if change.pop("teacher", False):
        teacher_folder = write_model(tmp_path, seed=1)
    with pytest.raises(UserError, match=message):
        prepare_again(latents_folder, teacher_folder, **change)
    assert contents(latents_folder) == before


def test_a_mistake_in_another_process_is_still_one_sentence(teacher_folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is not empty and holds no prepared latents"):
        prepare_again(tmp_path, teacher_folder, devices=2)


def test_a_folder_of_something_else_is_not_touched(teacher_folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is not empty and holds no prepared latents"):
        prepare_again(tmp_path, teacher_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_no_clips_and_no_device(teacher_folder, tmp_path):
    with pytest.raises(UserError, match="no clips to prepare"):
        prepare_again(tmp_path / "store", teacher_folder, clips=ToyClips(0))
    with pytest.raises(UserError, match="shard_size=0: each must be at least 1"):
        prepare_again(tmp_path / "store", teacher_folder, shard_size=0)
    with pytest.raises(UserError, match='accelerator is "tpu"'):
        prepare_again(tmp_path / "store", teacher_folder, accelerator="tpu")


@pytest.fixture
def copied(latents_folder, tmp_path):
    return shutil.copytree(latents_folder, tmp_path / "store")


def test_a_flipped_byte_is_found(copied):
    LatentReader(copied).verify()
    path = copied / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"shard-00001.safetensors is damaged"):
        LatentReader(copied).verify()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / latents.INDEX).unlink(), "holds no prepared latents"),
        (lambda folder: (folder / "shard-00000.safetensors").unlink(), "has 0 bytes where the index says"),
        (lambda folder: (folder / "shard-00000.safetensors").write_bytes(b"x"), "has 1 bytes where the index says"),
    ],
)
def test_a_store_that_is_not_whole_is_refused(copied, damage, message):
    damage(copied)
    with pytest.raises(UserError, match=message):
        LatentReader(copied)


def test_the_index_names_every_file_with_its_digest(latents_folder):
    index = json.loads((latents_folder / latents.INDEX).read_text())
    assert [file["num_clips"] for file in index["files"]] == [9, 9, 6]
    assert load_file(latents_folder / index["files"][0]["file"])["mean"].dtype == torch.float16
