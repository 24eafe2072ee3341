import resource
import shutil
import threading
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from tiny_model import write_model
from toy_clips import BrokenClips, ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.locks import LOCK
from bsa_lightning.data import latents, prepare
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.models.loading import load_codec, load_conditioner

HALF = {"rtol": 1e-3, "atol": 1e-3}
"""What float16 storage rounds away."""


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def prepare_again(folder, teacher_folder, clips=None, **settings):
    settings = {"batch_size": 4, "shard_size": 9} | settings
    return prepare_folder(ToyClips(24) if clips is None else clips, folder, str(teacher_folder), **settings)


def test_a_clip_is_what_codec_and_text_encoder_say(latents_folder, teacher_folder):
    reader, clips = LatentReader(latents_folder), ToyClips(24)
    codec, conditioner = load_codec(teacher_folder), load_conditioner(teacher_folder)
    assert len(reader) == 24
    for i in (0, 8, 9, 23):
        clip = reader[i]
        wave = clips.waveform(i, sample_rate=codec.sample_rate, num_samples=codec.num_samples)
        mean, std = codec.encode(wave[None])
        torch.testing.assert_close(clip.mean, mean[0], **HALF)
        torch.testing.assert_close(clip.std, std[0], **HALF)
        assert clip.captions == clips.captions(i)
        for caption, conditioning in zip(clip.captions, clip.conditioning, strict=True):
            torch.testing.assert_close(conditioning.tensors, conditioner([caption]).tensors, **HALF)
            torch.testing.assert_close(conditioning.masks, conditioner([caption]).masks)
    null = conditioner.null()
    torch.testing.assert_close(reader.null.tensors["states"], null.tensors["states"])


@pytest.mark.slow
@pytest.mark.timeout(300)
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
        ({"shard_size": 5}, "prepared before with other shard_size"),
        ({"teacher": True}, "prepared before with other codec, conditioner"),
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
    with pytest.raises(UserError, match=r'^clip "toy-5" has a latent of the codec that is not a finite number'):
        prepare_folder(BrokenClips(6), tmp_path, str(teacher_folder), batch_size=3, shard_size=3, devices=2)


def test_a_mistake_ends_its_process_and_with_it_the_others(monkeypatch):
    def fail(*_):
        raise UserError("nothing fits")

    monkeypatch.setattr(prepare, "_prepare_share", fail)
    told = []
    with pytest.raises(SystemExit, match="1"):
        prepare._prepare_and_report(1, SimpleNamespace(put=told.append))
    assert told == ["nothing fits"]


def test_a_folder_of_something_else_is_not_touched(teacher_folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is not empty and holds no prepared latents"):
        prepare_again(tmp_path, teacher_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_no_clips_and_no_device(teacher_folder, tmp_path):
    with pytest.raises(UserError, match="no clips to prepare"):
        prepare_again(tmp_path / "store", teacher_folder, clips=ToyClips(0))
    with pytest.raises(UserError, match="shard_size is 0, but must be a whole number, at least 1"):
        prepare_again(tmp_path / "store", teacher_folder, shard_size=0)
    with pytest.raises(UserError, match='accelerator is "tpu"'):
        prepare_again(tmp_path / "store", teacher_folder, accelerator="tpu")


@pytest.fixture
def copied(latents_folder, tmp_path):
    return shutil.copytree(latents_folder, tmp_path / "store")


def test_what_a_killed_prepare_left_is_cleared_away_and_nothing_else(latents_folder, teacher_folder, tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(latents_folder / prepare.REQUEST, folder)
    for name in (
        ".shard-00001.safetensors.partial-01234567-123-89abcdef",
        ".index.json.partial-01234567-1-89abcdef",
        ".partial-of-my-own",
        ".nfs0001",
    ):
        (folder / name).write_bytes(b"half")
    prepare_again(folder, teacher_folder)
    assert {path.name for path in folder.glob(".*")} == {".partial-of-my-own", ".nfs0001"}


def test_two_at_once_take_turns(latents_folder, teacher_folder, tmp_path, caplog):
    (tmp_path / "store").mkdir()
    lock = FileLock(tmp_path / "store" / LOCK)
    lock.acquire()
    second = threading.Thread(target=prepare_again, args=(tmp_path / "store", teacher_folder))
    second.start()
    second.join(1)
    assert {path.name for path in (tmp_path / "store").iterdir()} == {LOCK}
    assert f"another process prepares {tmp_path / 'store'}; waiting for it" in caplog.text
    lock.release()
    second.join()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert contents(tmp_path / "store") == contents(latents_folder)


def test_a_clip_without_a_finite_latent_is_named_and_not_written(teacher_folder, tmp_path):
    with pytest.raises(UserError, match='clip "toy-5" has a latent of the codec that is not a finite number'):
        prepare_again(tmp_path / "store", teacher_folder, clips=BrokenClips(24))
    assert [path.name for path in (tmp_path / "store").iterdir()] == [prepare.REQUEST]


@pytest.mark.parametrize(
    ("model", "method", "message"),
    [("load_codec", "encode", "latent of the codec"), ("load_conditioner", "forward", "state of the text encoder")],
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_a_model_without_finite_outputs_is_refused(
    teacher_folder, tmp_path, monkeypatch, model, method, message, value
):
    load = getattr(prepare, model)

    def broken(name):
        loaded = load(name)
        original = getattr(loaded, method)

        def spoilt(batch):
            found = original(batch)
            for tensor in found if method == "encode" else found.tensors.values():
                tensor.add_(value)
            return found

        monkeypatch.setattr(loaded, method, torch.no_grad()(spoilt), raising=True)
        return loaded

    monkeypatch.setattr(prepare, model, broken)
    with pytest.raises(UserError, match=f'clip "toy-0" has a {message} that is not a finite number in float16'):
        prepare_again(tmp_path / "store", teacher_folder)


@pytest.mark.parametrize("name", ["shard-00001.safetensors", "shard-00001.json"])
def test_a_flipped_bit_never_enters_a_new_index(copied, latents_folder, teacher_folder, name):
    """Without the index, only the files themselves can tell."""
    (copied / latents.INDEX).unlink()
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    prepare_again(copied, teacher_folder)
    assert contents(copied) == contents(latents_folder)


def test_a_shards_own_record_cannot_name_a_file_elsewhere(copied, latents_folder, teacher_folder):
    texts = copied / "shard-00000.json"
    texts.write_text(texts.read_text().replace('"shard-00000.safetensors"', '"../shard-00000.safetensors"'))
    prepare_again(copied, teacher_folder)
    assert contents(copied) == contents(latents_folder)


def test_a_request_that_is_no_json_is_one_sentence(copied, teacher_folder):
    (copied / prepare.REQUEST).write_text("{")
    with pytest.raises(UserError, match=r"request.json cannot be read as JSON"):
        prepare_again(copied, teacher_folder)
