"""Uploads to a server that answers as the hub does, through the hub's own client."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.hub_upload import refuse_upload, upload_model


class Hub(BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.path.partition("?")[0], body))
        status, content = 200, {}
        if self.server.status != 200:
            status = self.server.status
        elif "/whoami" in self.path:
            content = {"name": "me", "type": "user"}
        elif self.path.endswith("/repos/create"):
            content = {"url": f"{self.server.address}/me/student"}
        elif "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            content = {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]}
        elif "/commit/" in self.path:
            content = {"commitUrl": f"{self.server.address}/me/student/commit/{'0' * 40}", "commitOid": "0" * 40}
        else:
            content = {"id": "me/student", "sha": "0" * 40, "siblings": []}
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    do_GET = do_POST = answer  # noqa: N815 - the library's names

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    """The server, and a machine with a token for it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked, server.status = [], 200
        server.address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    (tmp_path / "pipeline.py").write_text("x = 1\n")
    return tmp_path


@pytest.mark.parametrize("private", [True, False])
def test_a_folder_arrives_in_one_commit(hub, folder, private):
    refuse_upload("me/student", folder)
    assert "/api/whoami-v2" in [path for path, _ in hub.asked]
    assert upload_model(folder, "me/student", private=private) == "https://huggingface.co/me/student"
    (made,) = (json.loads(body) for path, body in hub.asked if path == "/api/repos/create")
    assert made.get("private", made.get("visibility") == "private") is private
    (commit,) = (body for path, body in hub.asked if path == "/api/models/me/student/commit/main")
    entries = [json.loads(line) for line in commit.decode().splitlines()]
    files = {entry["value"]["path"] for entry in entries if entry["key"] == "file"}
    assert files == {"unet/config.json", "pipeline.py"}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"but the hub does not accept this machine's token; run `hf auth login` again"),
        (500, r"but the hub cannot be reached \(.*\); leave it out, and run `hf upload me/student out` later"),
    ],
)
def test_a_refusal_comes_before_the_work(hub, status, message):
    hub.status = status
    with pytest.raises(UserError, match=f'^push_to_hub is "me/student", {message}$'):
        refuse_upload("me/student", "out")


def test_an_upload_that_fails_says_what_is_there(hub, folder):
    hub.status = 500
    with pytest.raises(UserError, match=r"is written, but cannot be uploaded to me/student .*run `hf upload me/stud"):
        upload_model(folder, "me/student", private=True)


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch, folder):
    """The errors of the client's transport have no class in common with others."""

    class NoConnectionError(Exception):
        pass

    def fails(*_, **__):
        raise NoConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.whoami", fails)
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", fails)
    with pytest.raises(UserError, match=r"the hub cannot be reached \(no route to host\); leave it out"):
        refuse_upload("me/student", "out")
    with pytest.raises(UserError, match=r"is written, but cannot be uploaded to me/student \(no route to host\)"):
        upload_model(folder, "me/student", private=True)


def test_a_machine_without_a_token_is_told_at_once(hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(UserError, match=r"has no token for the hub; run `hf auth login` once$"):
        refuse_upload("me/student", "out")
    assert "/api/whoami-v2" not in [path for path, _ in hub.asked]


def test_offline_is_said(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(UserError, match=r"the hub cannot be reached \(.*offline mode is enabled.*hf upload me/student"):
        refuse_upload("me/student", "out")


@pytest.mark.parametrize("name", ["student", "me/you/student", "me/ student"])
def test_a_name_that_is_none_of_a_repository(name):
    with pytest.raises(UserError, match="must be a repository on the Hugging Face hub, as owner/name"):
        refuse_upload(name, "out")
