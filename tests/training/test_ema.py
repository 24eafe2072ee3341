import pytest
import torch
from torch import nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.training.ema import EMA, copy_weights


def network(value):
    made = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    for parameter in made.parameters():
        nn.init.constant_(parameter, value)
    return made


@pytest.mark.parametrize("decay", [0.9, 0.999])
def test_the_average_is_the_sum_of_powers_of_its_decay(decay):
    """From 1, with updates to 2, 3 and 4: decay^3 + (1 - decay) (2 decay^2 + 3 decay + 4)."""
    ema = EMA(network(1.0), decay)
    for value in (2.0, 3.0, 4.0):
        ema.update(network(value))
    expected = decay**3 + (1 - decay) * (2 * decay**2 + 3 * decay + 4)
    for parameter in ema.average.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, expected), rtol=1e-6, atol=0)
        assert parameter.grad_fn is None


def test_the_average_is_a_frozen_copy_in_eval_mode():
    start = network(1.0).train()
    ema = EMA(start, 0.5)
    assert not ema.average.training
    assert start.training
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    assert all(parameter.requires_grad for parameter in start.parameters())
    start[0].weight.data.fill_(7.0)
    assert (ema.average[0].weight == 1).all()


def test_weights_are_copied_in_place_with_buffers():
    source, target = network(3.0), network(1.0)
    source[1].running_mean.fill_(5.0)
    held = dict(target.state_dict(keep_vars=True))
    copy_weights(source=source, target=target)
    for name, tensor in target.state_dict(keep_vars=True).items():
        assert tensor is held[name]
        assert torch.equal(tensor, source.state_dict()[name])
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in target.parameters())
    source[0].weight.data.fill_(9.0)
    assert (target[0].weight == 3).all()


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(UserError, match="ema_decay"):
        EMA(torch.nn.Linear(2, 2), decay)
