"""The device that stands for a GPU refuses what a GPU refuses, and says where the CPU waits for it."""

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which needs no stand-in")

HERE = torch.ones(3)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda there: there + HERE,
        lambda there: HERE + there,
        lambda there: HERE @ there,
        lambda there: torch.cat([there, HERE]),
        lambda there: torch.stack([there[0], torch.tensor(1.0)]),
        lambda there: torch.tensor(1.0).add_(there[0]),
        lambda there: there.index_put_((torch.tensor([0, 1, 2]),), HERE),
        lambda there: HERE[there > 0],
        lambda there: torch.nn.functional.linear(there, torch.eye(3)),
        lambda there: torch.randn(3, generator=torch.Generator(), device=there.device),
    ],
)
def test_tensors_of_two_devices_are_refused(device, mixed):
    with pytest.raises(RuntimeError, match=r"two devices|generator of the CPU"):
        mixed(torch.ones(3, device=device))


@pytest.mark.parametrize(
    ("what", "waits"),
    [
        (lambda there: there.sum().item(), 1),
        (lambda there: there.cpu(), 1),
        (lambda there: HERE.to(there.device), 1),
        (lambda there: there.copy_(HERE), 1),
        (lambda there: there[there > 0], 1),
        (lambda there: there[torch.tensor([0])], 1),
        (lambda there: torch.tensor([1.0], device=there.device), 1),
        (lambda there: HERE.to(there.device, non_blocking=True), 0),
        (lambda there: there.copy_(HERE, non_blocking=True), 0),
        (lambda there: there * torch.tensor(2.0) + there[1:2], 0),
        (lambda there: torch.zeros(3, device=there.device), 0),
    ],
)
def test_places_where_the_cpu_waits_are_noted(device, what, waits):
    from simulated_device import new_waits

    there = torch.ones(3, device=device)
    new_waits()
    what(there)
    assert len(new_waits()) == waits


def test_it_computes_as_the_cpu_does(device):
    layer, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    expected = layer(x)
    there = torch.nn.Linear(3, 2).to(device)
    there.load_state_dict(layer.state_dict())
    found = there(x.to(device))
    found.square().sum().backward()
    expected.square().sum().backward()
    assert found.device == there.weight.grad.device
    assert torch.equal(found.detach().cpu(), expected.detach())
    assert torch.equal(there.weight.grad.cpu(), layer.weight.grad)
