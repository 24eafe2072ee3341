import os
import resource
import signal

os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true")

import pytest
from tiny_model import CAPTIONS, write_model
from toy_clips import ToyClips

from bsa_lightning.data.prepare import prepare_folder


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """The user's cache folder, in place of that of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    """A whole model folder with random weights; nobody writes to it."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def latents_folder(tmp_path_factory, teacher_folder):
    """A store of 24 prepared clips in three shards; nobody writes to it."""
    folder = tmp_path_factory.mktemp("latents") / "store"
    prepare_folder(ToyClips(24), folder, str(teacher_folder), batch_size=4, shard_size=9)
    return folder


@pytest.fixture
def captions():
    return CAPTIONS


@pytest.fixture
def small_disk():
    """No file may grow beyond so many bytes: the system's own error, on its way through whatever library writes."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)
