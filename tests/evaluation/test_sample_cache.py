from dataclasses import replace

import pytest
import torch

from bsa_lightning.evaluation.sample_cache import SampleCache, SampledBatch
from bsa_lightning.evaluation.systems import teacher_system
from bsa_lightning.generation.samplers import DPMSolver
from bsa_lightning.models.conditioning import Conditioning

NOISE = torch.arange(12.0).reshape(2, 6)
TOLD = Conditioning({"states": torch.ones(2, 3, 4)}, {"states": torch.ones(2, 3, dtype=torch.bool)})
MASKED = Conditioning(TOLD.tensors, {"states": torch.tensor([[True, True, False]] * 2)})


@pytest.fixture
def asked(teacher_folder):
    return {
        "system": teacher_system(teacher_folder, num_steps=4, guidance_scale=3.0),
        "noise": NOISE,
        "conditioning": TOLD,
        "null": TOLD[:1],
    }


def get(cache, asked):
    """What the cache gives, and whether it was made for that."""
    made = []

    def make():
        made.append(True)
        return SampledBatch(2 * asked["noise"], 16, 0.25)

    return cache.get(make, **asked), bool(made)


def test_what_was_asked_before_is_not_made_again(asked, tmp_path):
    first, made = get(SampleCache(tmp_path), asked)
    again, made_again = get(SampleCache(tmp_path), asked)
    assert (made, made_again) == (True, False)
    assert torch.equal(again.latents, first.latents)
    assert again[1:] == first[1:] == (16, 0.25)


@pytest.mark.parametrize(
    "other",
    [
        {"num_steps": 8},
        {"sampler": DPMSolver()},
        {"sampling_scale": 2.0},
        {"noise": NOISE + 1},
        {"noise": NOISE.double()},
        {"conditioning": MASKED},
        {"null": MASKED[:1]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_is_asked_otherwise_is_made(asked, other, tmp_path):
    get(SampleCache(tmp_path), asked)
    if not other.keys() <= asked.keys():
        other = {"system": replace(asked["system"], **other)}
    assert get(SampleCache(tmp_path), asked | other)[1]


def test_another_precision_is_another_sample(asked, tmp_path):
    get(SampleCache(tmp_path), asked)
    with torch.autocast("cpu", torch.bfloat16):
        assert get(SampleCache(tmp_path), asked)[1]


def test_a_damaged_file_is_made_again(asked, tmp_path):
    get(SampleCache(tmp_path), asked)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert get(SampleCache(tmp_path), asked)[1]
    assert not get(SampleCache(tmp_path), asked)[1]


def test_without_a_folder_all_is_made(asked):
    assert all(get(SampleCache(None), asked)[1] for _ in range(2))
