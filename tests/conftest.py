import os

os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true")

import pytest
from tiny_model import CAPTIONS, write_model
from toy_clips import ToyClips

from bsa_lightning.data.prepare import prepare_folder


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
