"""Where a test trains: on the CPU, on a GPU, or on the simulated device."""

from contextlib import nullcontext


def trainer_on(place):
    """The settings of a ``Trainer`` for a type of device."""
    if place == "simulated":
        from simulated_device import simulated_trainer  # which tells torch of the device

        return simulated_trainer()
    return {"accelerator": "gpu" if place == "cuda" else "cpu", "devices": 1}


def context_of(place):
    """The context in which there is a type of device."""
    if place == "simulated":
        from simulated_device import simulated_device

        return simulated_device()
    return nullcontext()
