"""Files from a hub, which is a server of this machine: where they are kept, and what is refused."""

import hashlib
import http.server
import json
import os
import random
import subprocess
import sys
import threading

import pytest
from ports import free_port

from bsa_lightning.models.hub import _MODEL_FILES, fetch_model

COMMIT = "0" * 40
FILES = {"config.json": b'{"width": 3}', "model.safetensors": random.Random(0).randbytes(1_000_000)}
FETCH = """
import os, resource, signal
if limit := int(os.environ.get("LARGEST_FILE", 0)):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from bsa_lightning.common.errors import UserError
from bsa_lightning.models.hub import fetch
try:
    print(fetch("somebody/model", ["config.json", "model.safetensors"], option="checkpoint"))
except UserError as error:
    print("refused:", error)
"""


def git_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """What Hugging Face's client asks for; ``sent`` may differ from what is listed."""

    sent = FILES

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        content = self.answer()
        self.wfile.write(content)

    def answer(self):
        self.server.asked.append(self.path)
        self.send_response(200)
        if self.path.startswith("/api/models"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)} for name, data in FILES.items()
            ]
            info = {"id": "somebody/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            content = json.dumps(tree if "/tree/" in self.path else info).encode()
            self.send_header("Content-Type", "application/json")
        else:
            name = self.path.rpartition("/")[2]
            content, listed = self.sent[name], FILES[name]
            tag = hashlib.sha256(listed).hexdigest() if name == "model.safetensors" else git_sha1(listed)
            self.send_header("ETag", f'"{tag}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(hub, home, *, offline="0", **more):
    """Fetches in a process of its own, since the client reads its environment once."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": offline,
        "no_proxy": "127.0.0.1",
        **more,
    }
    return subprocess.run(
        [sys.executable, "-c", FETCH], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_files_are_fetched_once_below_hf_home(hub, tmp_path):
    folder = fetch(hub, tmp_path / "home")
    assert folder.startswith(str(tmp_path / "home" / "hub"))
    assert {name: (tmp_path / folder / name).read_bytes() for name in FILES} == FILES
    asked = len(hub.asked)
    assert fetch(hub, tmp_path / "home", offline="1") == folder
    assert len(hub.asked) == asked


def test_offline_is_the_reason_and_touches_no_network(hub, tmp_path):
    message = fetch(hub, tmp_path / "home", offline="1")
    assert message == (
        "refused: somebody/model is not a folder here and cannot be fetched from the hub (HF_HUB_OFFLINE is set); on a"
        " machine that can, run `hf download somebody/model config.json model.safetensors --local-dir model`, copy that"
        " folder here, and name it as checkpoint"
    )
    assert not hub.asked


@pytest.mark.parametrize("name", FILES)
def test_what_arrives_damaged_is_refused_and_removed(hub, tmp_path, monkeypatch, name):
    monkeypatch.setattr(Hub, "sent", {**FILES, name: b"x" * len(FILES[name])})
    message = fetch(hub, tmp_path / "home")
    assert f"cannot be fetched from the hub ({name} arrived damaged: its digest is" in message
    monkeypatch.undo()
    folder = fetch(hub, tmp_path / "home")
    assert {name: (tmp_path / folder / name).read_bytes() for name in FILES} == FILES


def test_a_disk_that_fills_up(hub, tmp_path):
    message = fetch(hub, tmp_path / "home", LARGEST_FILE="500000")
    assert message.startswith(f"refused: the disk of {tmp_path / 'home' / 'hub'} is full; free some space")


def test_a_server_that_does_not_answer(hub, tmp_path):
    message = fetch(hub, tmp_path / "home", HF_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert "somebody/model is not a folder here and cannot be fetched from the hub (" in message
    assert "run `hf download somebody/model config.json model.safetensors" in message


def test_a_model_is_asked_for_once_in_a_process(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path))
    assert [fetch_model("somebody/else"), fetch_model("somebody/else")] == [tmp_path, tmp_path]
    assert asked == ["somebody/else"]


def test_the_licence_of_a_model_is_fetched_with_it():
    from huggingface_hub.utils import filter_repo_objects

    wanted = ["LICENSE", "NOTICE", "Licence.pdf", "notice.html", "README.md", "unet/config.json"]
    found = filter_repo_objects([*wanted, "model.bin", "samples/rain.wav"], allow_patterns=_MODEL_FILES)
    assert list(found) == wanted
