"""A file from the web, with all that can go wrong on its way; the web is a server of this machine."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple

import pytest
from ports import free_port
from web_server import serving

from bsa_lightning.common import download
from bsa_lightning.common.download import fetch_file
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.locks import locked

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PAGE = "https://example.org/weights"


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "weights.pth"


def fetch(path, url, sha256=SHA256):
    fetch_file(path, url=url, sha256=sha256, page=PAGE)


def refused(path, url, sha256=SHA256):
    with pytest.raises(UserError) as caught:
        fetch(path, url, sha256)
    assert not path.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_fetched_once_with_a_bar(path, capsys):
    with serving(CONTENT) as (url, asked):
        fetch(path, url)
        fetch(path, url)
    assert path.read_bytes() == CONTENT
    assert asked == [None]
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert "fetch weights.pth: 100%" in capsys.readouterr().err


def test_a_transfer_that_is_cut_off_goes_on_where_it_ended(path, caplog):
    with serving(CONTENT, cut_after=[1_000_000, 500_000]) as (url, asked):
        fetch(path, url)
    assert path.read_bytes() == CONTENT
    assert asked == [None, "bytes=1000000-", "bytes=1500000-"]
    assert "weights.pth was cut off after 1000000 bytes (only 1000000 of 3000000 bytes arrived)" in caplog.text


def test_a_later_call_goes_on_where_an_earlier_one_ended(path):
    with serving(CONTENT, cut_after=[1_000_000, 0]) as (url, _):
        message = refused(path, url)
    assert "what has arrived is kept, and the same command goes on from there" in message
    with serving(CONTENT) as (url, asked):
        fetch(path, url)
    assert path.read_bytes() == CONTENT
    assert asked == ["bytes=1000000-"]


def test_a_server_that_always_cuts_off_is_given_up(path):
    with serving(CONTENT, cut_after=[10] * 100) as (url, asked):
        refused(path, url)
    assert len(asked) == 10


@pytest.mark.parametrize("begun", [CONTENT[:1_000_000], CONTENT], ids=["a part", "all"])
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_what_an_earlier_process_left_is_completed(path, begun, ranges):
    path.parent.mkdir()
    path.with_name(".weights.pth.part").write_bytes(begun)
    with serving(CONTENT, ranges=ranges) as (url, _):
        fetch(path, url)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("begun", [b"of another file", CONTENT + b"too long"], ids=["another", "too long"])
def test_what_does_not_fit_is_fetched_anew(path, begun):
    path.parent.mkdir()
    path.with_name(".weights.pth.part").write_bytes(begun)
    with serving(CONTENT) as (url, asked):
        fetch(path, url)
    assert path.read_bytes() == CONTENT
    assert asked == [f"bytes={len(begun)}-", None]


def test_another_file_is_refused_and_removed(path):
    with serving(b"<html>please log in</html>") as (url, asked):
        message = refused(path, url)
    other = hashlib.sha256(b"<html>please log in</html>").hexdigest()
    assert message == (
        f"{path} is not there, and {url} sends another file (sha256 {other[:8]}...); put weights.pth from {PAGE} there"
        f" (sha256 {SHA256[:8]}...)"
    )
    assert asked == [None]
    assert not path.parent.exists()


def test_no_network(path):
    message = refused(path, f"http://127.0.0.1:{free_port()}/file")
    assert message.startswith(f"{path} is not there and cannot be fetched from http://127.0.0.1:")
    assert f"refused; put weights.pth from {PAGE} there (sha256 {SHA256[:8]}...)" in message
    assert not path.parent.exists()


def test_a_relative_path_is_said_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "weights.pth") in refused(download.Path("weights.pth"), f"http://127.0.0.1:{free_port()}/")


def test_a_server_without_the_file(path):
    with serving(CONTENT, status=404) as (url, asked):
        assert "HTTP Error 404: Not Found; put weights.pth" in refused(path, url)
    assert len(asked) == 1


def test_offline_touches_no_network(path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with serving(CONTENT) as (url, asked):
        message = refused(path, url)
    assert message.startswith(f"{path} is not there, and HF_HUB_OFFLINE is set; put weights.pth from {PAGE} there")
    assert not asked
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    fetch(path, "http://127.0.0.1:1/")


def test_a_disk_without_room_is_found_before_the_transfer(path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2_000_000))
    with serving(CONTENT) as (url, _):
        assert "has 2 MB free, but 3 MB are still needed; free some space" in refused(path, url)
    assert not path.parent.exists()


def test_a_disk_that_fills_up(path, small_disk):
    with serving(CONTENT) as (url, asked):
        small_disk(1_500_000)
        assert refused(path, url).startswith(f"the disk of {path.parent} is full; free some space")
    assert len(asked) == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be made" in refused(tmp_path / "file" / "weights.pth", f"http://127.0.0.1:{free_port()}/")


def test_whoever_waits_for_another_process_says_so(path, caplog):
    with serving(CONTENT) as (url, _):
        thread = threading.Thread(target=fetch, args=(path, url), daemon=True)
        with locked(path.parent, busy="locked"):
            thread.start()
            while "another process writes to" not in caplog.text:
                assert thread.is_alive()
                time.sleep(0.01)
            assert not path.exists()
        thread.join(30)
        assert path.read_bytes() == CONTENT
        caplog.clear()
        path.unlink()
        fetch(path, url)
    assert "another process" not in caplog.text


def test_two_processes_fetch_a_file_once(path):
    code = (
        "import sys; from pathlib import Path; from bsa_lightning.common.download import fetch_file;"
        f" fetch_file(Path({str(path)!r}), url=sys.argv[1], sha256={SHA256!r}, page={PAGE!r})"
    )
    with serving(CONTENT) as (url, asked):
        environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
        both = [subprocess.Popen([sys.executable, "-c", code, url], env=environment) for _ in range(2)]
        assert [process.wait(60) for process in both] == [0, 0]
    assert path.read_bytes() == CONTENT
    assert asked == [None]
