import pytest
import torch

from bsa_lightning.data.order import seeded
from bsa_lightning.distillation.draws import draw, seed_networks


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_seed_decides_what_a_network_drops(device):
    dropout, x = torch.nn.Dropout(0.5), torch.ones(64, device=device)

    def dropped(seed):
        seed_networks(seed, x.device)
        return dropout(x)

    assert dropped(3).equal(dropped(3))
    assert not dropped(3).equal(dropped(4))


def test_draws_are_those_of_one_generator_in_their_order():
    """Which stays: a run that is resumed by a later version must see what it would have seen."""
    latents, numbers = torch.zeros(5, 2, 3), {"seed": 1, "step": 2, "micro_batch": 3, "rank": 4}
    found, generator = draw(**numbers, latents=latents, caption_dropout=0.5), seeded(1, 2, 3, 4)
    assert torch.equal(found.uniform, torch.rand(5, generator=generator, dtype=torch.float64))
    assert torch.equal(found.eps, torch.randn(5, 2, 3, generator=generator))
    assert torch.equal(found.posterior_noise, torch.randn(5, 2, 3, generator=generator))
    captions = torch.rand(5, generator=generator)
    assert torch.equal(found.keep_caption, captions >= 0.5)
    assert torch.equal(found.guidance, torch.rand(5, generator=generator))
    assert found.seed == seeded(1, 2, 3, 4).initial_seed()
    assert draw(**numbers, latents=latents).keep_caption.all()
    on_the_edge = draw(**numbers, latents=latents, caption_dropout=float(captions.max())).keep_caption
    assert on_the_edge.tolist() == (captions == captions.max()).tolist()
