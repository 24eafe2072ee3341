import os
import signal
from types import SimpleNamespace

import pytest

from bsa_lightning.training.interruption import Interruption


@pytest.fixture
def interruption():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    listening = Interruption()
    listening.listen()
    yield listening
    listening.end()
    assert signal.getsignal(signal.SIGINT) == before[1]
    signal.signal(signal.SIGTERM, before[0])


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130)])
def test_signals_are_noted_and_told_with_how_to_go_on(interruption, number, name, code):
    trainer = SimpleNamespace(world_size=1)
    assert not interruption.agreed(trainer, 3)
    os.kill(os.getpid(), number)
    assert interruption.agreed(trainer, 3)
    error = interruption.stopped(7)
    assert str(error) == f"stopped by {name} after 7 updates; go on with --ckpt_path last"
    assert error.exit_code == code


def test_the_second_time_ctrl_c_stops_at_once(interruption, capsys):
    os.kill(os.getpid(), signal.SIGINT)
    assert "Ctrl-C again stops at once" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
