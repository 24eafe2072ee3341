import pytest
import torch

from bsa_lightning.distillation.draws import seed_networks


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_seed_decides_what_a_network_drops(device):
    dropout, x = torch.nn.Dropout(0.5), torch.ones(64, device=device)

    def dropped(seed):
        seed_networks(seed, x.device)
        return dropout(x)

    assert dropped(3).equal(dropped(3))
    assert not dropped(3).equal(dropped(4))
