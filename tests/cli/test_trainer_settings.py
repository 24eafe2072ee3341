"""Settings of the trainer that no run can use, whatever machine the tests run on."""

import pytest
from jsonargparse import Namespace

from bsa_lightning.cli import trainer_settings
from bsa_lightning.cli.trainer_settings import check_gpus
from bsa_lightning.common.errors import UserError


@pytest.fixture
def machine(monkeypatch):
    def with_gpus(cuda, *, mps=False):
        monkeypatch.setattr(trainer_settings.CUDAAccelerator, "auto_device_count", lambda: cuda)
        monkeypatch.setattr(trainer_settings.MPSAccelerator, "is_available", lambda: mps)

    return with_gpus


@pytest.mark.parametrize(
    ("accelerator", "devices", "cuda", "mps"),
    [
        ("gpu", 1, 1, False),
        ("gpu", 1, 0, True),
        ("cuda", "auto", 2, False),
        ("gpu", 2, 2, False),
        ("gpu", [3], 1, False),  # Lightning's to judge
        ("cpu", 8, 0, False),
        ("auto", "auto", 0, False),
    ],
)
def test_gpus_that_are_there_are_taken(machine, accelerator, devices, cuda, mps):
    machine(cuda, mps=mps)
    check_gpus(Namespace(accelerator=accelerator, devices=devices))


@pytest.mark.parametrize(
    ("accelerator", "devices", "cuda", "mps", "message"),
    [
        ("gpu", 1, 0, False, "trainer.accelerator is gpu, but torch finds no GPU on this machine; run it where"),
        ("cuda", 1, 0, True, "trainer.accelerator is cuda, but torch finds no GPU"),
        ("gpu", 8, 2, False, "trainer.devices is 8, but torch finds 2 GPUs on this machine; name at most 2"),
        ("gpu", "8", 1, False, "trainer.devices is 8, but torch finds 1 GPU on this machine; name at most 1"),
    ],
)
def test_gpus_that_are_not_there_are_refused(machine, accelerator, devices, cuda, mps, message):
    machine(cuda, mps=mps)
    with pytest.raises(UserError, match=message):
        check_gpus(Namespace(accelerator=accelerator, devices=devices))
