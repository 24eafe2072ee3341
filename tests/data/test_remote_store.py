"""Stores of latents at an address, from a real server on this machine."""

import hashlib
import json
import multiprocessing
import socket
import sys
import threading
import time

import pytest
import torch
from s3_server import BUCKET, Server, data_of_rank, stream
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.data import remote_store
from bsa_lightning.data.datamodule import Prepared
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.prefetching import Prefetcher
from bsa_lightning.data.prepare import prepare_folder

for package in ("s3fs", "moto"):
    pytest.importorskip(package)

URL = f"s3://{BUCKET}/store"
SHARDS = [f"shard-0000{number}.safetensors" for number in range(3)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server") / "log.txt")
    yield server
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch, latents_folder):
    """The client's file system, with the store uploaded; a test may damage it."""
    import s3fs

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    if files.exists(BUCKET):
        files.rm(BUCKET, recursive=True)
    files.mkdir(BUCKET)
    for path in latents_folder.iterdir():
        files.pipe_file(f"{BUCKET}/store/{path.name}", path.read_bytes())
    yield files
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def short_waits(monkeypatch):
    import s3fs
    from fsspec.config import conf

    config = {"connect_timeout": 1, "read_timeout": 1, "retries": {"total_max_attempts": 1}}
    monkeypatch.setitem(conf, "s3", {"config_kwargs": config})
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)


def same_rows(found, local):
    for row in found:
        expected = local[int(row["index"])]
        assert torch.equal(row["mean"], expected.mean)
        assert torch.equal(row["std"], expected.std)
        assert any(torch.equal(row["states"], clip.tensors["states"][0]) for clip in expected.conditioning)


@pytest.mark.slow
@pytest.mark.timeout(300)  # two starts of python, and two workers each
def test_two_ranks_stream_each_clip_once_with_the_bytes_of_the_folder(server, bucket, latents_folder, tmp_path):
    """24 clips in global batches of 10: the last one of the pass goes on in the next epoch."""
    settings = {"batch_size": 5, "shuffle_shards": 2, "num_val_clips": 7}
    before = {name: server.gets(name) for name in SHARDS}
    multiprocessing.set_forkserver_preload(["bsa_lightning.data.datamodule"])
    runs = [{**settings, "num_workers": num_workers} for num_workers in (0, 2)]
    arguments = (2, str(tmp_path), server.environment, URL, runs)
    torch.multiprocessing.start_processes(stream, arguments, nprocs=2, start_method="forkserver")
    alone = data_of_rank(Prepared(str(latents_folder)), rank=0, world_size=1, **settings | {"batch_size": 10})
    order = torch.cat([batch.index for batch in alone.train_dataloader()]).tolist()
    assert sorted(order[:24]) == list(range(24))

    local = LatentReader(latents_folder)
    for number in range(len(runs)):
        ranks = [torch.load(tmp_path / f"{number}-{rank}.pt") for rank in range(2)]
        together = zip(*(found["train"] for found in ranks), strict=True)
        train = [row for batches in together for batch in batches for row in batch]
        val = [row for found in ranks for batch in found["val"] for row in batch if row["index"] >= 0]
        assert [int(row["index"]) for row in train] == order
        assert sorted(int(row["index"]) for row in val) == list(range(7))
        same_rows(train + val, local)
    assert {name: server.gets(name) - before[name] for name in SHARDS} == dict.fromkeys(SHARDS, len(runs))
    assert not list(tmp_path.rglob("*.partial-*"))


def test_a_global_shuffle_streams_too_and_the_cache_serves_the_next_run(server, bucket, latents_folder, tmp_path):
    store = Prepared(URL, cache=tmp_path)
    for _ in range(2):
        store.make()
        data = data_of_rank(store, rank=0, world_size=1, batch_size=4)
        index = torch.cat([batch.index for batch in data.train_dataloader()])
        data.teardown("fit")
        assert sorted(index.tolist()) == list(range(24))
        gets = [server.gets(name) for name in SHARDS]
    bucket.rm(f"{BUCKET}/store/{SHARDS[0]}")
    assert LatentReader(URL, tmp_path)[0].captions == LatentReader(latents_folder)[0].captions
    assert gets == [server.gets(name) for name in SHARDS]


def test_shards_come_before_they_are_read(bucket, tmp_path):
    reader = LatentReader(URL, tmp_path)
    ahead = Prefetcher(reader)
    ahead.start([2, 0])
    for _ in range(200):
        if len(list(reader.store.cache.glob("*.safetensors"))) == 3:  # the null conditioning is there from the start
            break
        time.sleep(0.05)
    ahead.pause()
    assert {path.name for path in reader.store.cache.glob("shard*s")} == {SHARDS[0], SHARDS[2]}


def test_a_pause_leaves_a_shard_and_what_follows_begins_it_anew(bucket, latents_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_store, "_BLOCK", 1000)
    reader, asked = LatentReader(URL, tmp_path), []
    reader.fetch_ahead(0, lambda: asked.append(1) or len(asked) > 2)
    assert len(asked) == 3
    assert [path.name for path in reader.store.cache.glob("shard*[sn]")] == ["shard-00000.json"]
    assert not list(reader.store.cache.glob(".*"))
    assert torch.equal(reader[0].mean, LatentReader(latents_folder)[0].mean)


@pytest.mark.parametrize("name", [SHARDS[1], "shard-00001.json", "null.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "longer", "flipped"])
def test_a_damaged_object_is_refused_by_name_and_never_gets_one(bucket, tmp_path, name, damage):
    content = bytearray(bucket.cat_file(f"{BUCKET}/store/{name}"))
    content[len(content) // 2] ^= 1
    if damage != "flipped":
        content = content[:-7] if damage == "truncated" else content + b"\0"
    bucket.pipe_file(f"{BUCKET}/store/{name}", bytes(content))
    with pytest.raises(
        UserError, match=rf"{URL}/{name} (has \d+ bytes where the index says|is damaged).*upload it anew"
    ):
        LatentReader(URL, tmp_path)[9]
    assert not list(tmp_path.rglob(name))
    assert not list(tmp_path.rglob(".*"))


def test_what_was_damaged_in_the_cache_is_fetched_anew(bucket, latents_folder, tmp_path):
    LatentReader(URL, tmp_path)[0]
    cached = next(tmp_path.rglob(SHARDS[0]))
    good = cached.read_bytes()
    cached.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    Prepared(URL, cache=tmp_path).make()
    LatentReader(URL, tmp_path)[0]
    assert cached.read_bytes() == good


def test_what_a_killed_process_left_is_cleared_away(bucket, tmp_path):
    reader = LatentReader(URL, tmp_path)
    left = reader.store.cache / f".{SHARDS[0]}.partial-01234567-1-89abcdef"
    left.write_bytes(b"half")
    reader[0]
    assert not left.exists()


def test_another_store_at_the_same_address_does_not_meet_the_first_in_the_cache(
    bucket, latents_folder, teacher_folder, tmp_path
):
    first = LatentReader(URL, tmp_path / "cache")
    prepare_folder(ToyClips(5, "other"), tmp_path / "store", str(teacher_folder), batch_size=4, shard_size=9)
    first[0]
    for path in (tmp_path / "store").iterdir():
        bucket.pipe_file(f"{BUCKET}/store/{path.name}", path.read_bytes())
    second = LatentReader(URL, tmp_path / "cache")
    assert (len(first), len(second)) == (24, 5)
    assert first.store.cache != second.store.cache
    second[0]
    with pytest.raises(UserError, match="contains other clips"):
        Prepared(URL, ToyClips(24), cache=tmp_path / "cache").make()


def test_a_path_out_of_the_store_is_refused(bucket, tmp_path):
    index = json.loads(bucket.cat_file(f"{BUCKET}/store/index.json"))
    index["files"][0]["file"] = "../other/shard-00000.safetensors"
    bucket.pipe_file(f"{BUCKET}/store/index.json", json.dumps(index).encode())
    with pytest.raises(UserError, match="which is not the plain name of a shard"):
        LatentReader(URL, tmp_path)


@pytest.mark.parametrize("url", ["s3://no-such-bucket/store", f"s3://{BUCKET}/no-such-store"])
def test_a_bucket_or_key_that_is_not_there(bucket, tmp_path, url):
    with pytest.raises(UserError, match=rf"{url}/index.json does not exist; name the address"):
        LatentReader(url, tmp_path)


def test_no_credentials(bucket, tmp_path, monkeypatch):
    import s3fs

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=r"access to .* is denied .*set AWS_ACCESS_KEY_ID"):
        LatentReader(URL, tmp_path)


def test_the_package_is_not_there(monkeypatch, tmp_path):
    from fsspec.registry import _registry

    monkeypatch.delitem(_registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"needs a package that is not installed .*; install bsa-lightning\[s3\]"):
        LatentReader(URL, tmp_path)


def test_an_address_of_no_known_kind(tmp_path):
    with pytest.raises(UserError, match=r"noway://a/b/index.json cannot be read .*Protocol not known"):
        LatentReader("noway://a/b", tmp_path)


def test_a_server_that_stops_is_told_in_bounded_time(latents_folder, tmp_path, monkeypatch, short_waits):
    import s3fs

    server = Server(tmp_path / "log.txt")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir(BUCKET)
    for path in latents_folder.iterdir():
        files.pipe_file(f"{BUCKET}/store/{path.name}", path.read_bytes())
    data = data_of_rank(Prepared(URL, cache=tmp_path / "cache"), rank=0, world_size=1, batch_size=4, shuffle_shards=1)
    monkeypatch.setattr(data.train_reader.store, "fetch_ahead", lambda *_, **__: None)
    batches = iter(data.train_dataloader())
    next(batches)
    server.stop()
    start = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be read .*whether the server answers"):
        list(batches)
    assert time.monotonic() - start < 30
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_server_that_never_answers_is_given_up(bucket, tmp_path, monkeypatch, short_waits):
    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        s3fs.S3FileSystem.clear_instance_cache()
        start = time.monotonic()
        with pytest.raises(UserError, match=r"cannot be read .*whether the server answers"):
            LatentReader(URL, tmp_path)
        assert time.monotonic() - start < 30


def test_several_threads_fetch_a_shard_once(server, bucket, latents_folder, tmp_path):
    before = server.gets(SHARDS[0])
    found = []
    threads = [threading.Thread(target=lambda: found.append(LatentReader(URL, tmp_path)[0].mean)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(mean, LatentReader(latents_folder)[0].mean) for mean in found)
    assert len(found) == 6
    assert server.gets(SHARDS[0]) - before == 1


def test_prepare_writes_to_folders_only(teacher_folder):
    with pytest.raises(UserError, match="must be a folder on this machine"):
        prepare_folder(ToyClips(2), URL, str(teacher_folder))


def test_the_cache_is_in_the_users_own_folder_unless_named(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    LatentReader(URL)
    index = hashlib.sha256(bucket.cat_file(f"{BUCKET}/store/index.json")).hexdigest()
    assert [path.name for path in (tmp_path / "bsa-lightning" / "latents").iterdir()] == [index[:16]]
