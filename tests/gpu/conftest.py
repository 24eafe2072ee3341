"""Tests for a CUDA device: ``make gpu`` runs them, on a simulated device where none is there.

Whatever has no meaning without a CUDA device asks for the fixture ``cuda``, and is skipped by name.
"""

from pathlib import Path

import pytest
import torch
from places import context_of

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            # Libraries say more on a GPU, such as that it is not used where a test compares with the CPU.
            item.add_marker(pytest.mark.filterwarnings("default"), append=False)


@pytest.fixture
def device():
    place = "cuda" if torch.cuda.is_available() else "simulated"
    with context_of(place):
        yield torch.device(place)


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def float32_is_float32():
    """By default, cuDNN convolves float32 in TF32, which keeps three digits."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield
