import torch

from bsa_lightning.models.base import Posterior, shapes_only


def test_a_posterior_scales_and_shifts_the_noise():
    assert Posterior(torch.tensor(1.0), torch.tensor(2.0)).sample(torch.tensor(3.0)) == 7


def test_shapes_only_takes_no_memory_and_leaves_the_default_dtype():
    with shapes_only(torch.bfloat16):
        layer = torch.nn.Linear(1 << 20, 1 << 20)  # two terabytes, if it were there
    assert layer.weight.shape == (1 << 20, 1 << 20)
    assert layer.weight.dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32
