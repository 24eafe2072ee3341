"""A server that is not there, or does not know who asks: said before anything starts."""

import http.server
import socket
import threading
import time

import pytest
import wandb
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from bsa_lightning.common.errors import UserError
from bsa_lightning.training.wandb_run import WandbRun, refuse_unreachable, wandb_mode


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch, tmp_path):
    """W&B reads the environment once a process; there are no credentials in it."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "online")
    wandb.teardown()
    yield
    monkeypatch.undo()
    wandb.teardown()


@pytest.fixture
def server(monkeypatch):
    """Answers, and knows nobody."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()
        thread.join()


def test_no_server(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(UserError, match=r"wandb is online, but http://127.0.0.1:\d+ does not answer \(.*refused"):
            refuse_unreachable()
        assert time.monotonic() - began < 15


def test_no_key(server):
    with pytest.raises(UserError, match=r"this machine has no key for http://127.0.0.1:\d+; run `wandb login` once"):
        refuse_unreachable()


def test_a_key_that_the_server_does_not_know(server, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with pytest.raises(UserError, match=r"http://127.0.0.1:\d+ does not accept the key that this machine has"):
        refuse_unreachable()


@pytest.mark.parametrize(
    ("value", "mode"), [("online", "online"), ("disabled", "disabled"), ("", "offline"), (None, "offline")]
)
def test_the_environment_names_the_mode(monkeypatch, value, mode):
    monkeypatch.delenv("WANDB_MODE")
    if value is not None:
        monkeypatch.setenv("WANDB_MODE", value)
    assert wandb_mode() == mode


def test_a_mode_that_is_none(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "maybe")
    with pytest.raises(UserError, match='WANDB_MODE is "maybe", but must be offline, online or disabled'):
        wandb_mode()


def test_a_run_that_is_refused_leaves_no_folder(tmp_path, monkeypatch):
    """Lightning asks a logger for its experiment before it sets up what may be refused."""
    monkeypatch.setenv("WANDB_MODE", "offline")

    class Refused(BoringModel):
        def setup(self, stage):
            raise UserError("no")

    logger = WandbRun(tmp_path / "run", id="abc", config={}, online=False)
    trainer = Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    with pytest.raises(UserError, match="no"):
        trainer.fit(Refused())
    assert not (tmp_path / "run").exists()
    logger.log_metrics({"loss": 1.0})
    wandb.finish()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
