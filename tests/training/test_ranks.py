"""Two processes of one run, of which one is killed or told to stop."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from command_lines import ROOT

from bsa_lightning.training.rank_watch import _wait_for_all

CONFIG = """
run: run
wandb: disabled
trainer:
  accelerator: cpu
  devices: 2
  strategy: ddp
  max_steps: 100000
  enable_progress_bar: false
  callbacks: [{class_path: toys.TellProcess}, {class_path: RankWatch, init_args: {patience: 5}}]
model: {class_path: toys.ToyModule, init_args: {weighting: BSA}}
data: {class_path: toys.ToyData, init_args: {num_items: 16}}
"""


@pytest.fixture
def ranks(tmp_path):
    """The launcher, and the ids of both processes, which are training; what they say is in the file ``said``."""
    (tmp_path / "toy.yaml").write_text(CONFIG)
    files = [tmp_path / f"rank-{rank}" for rank in range(2)]
    with (tmp_path / "said").open("w") as said:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "bsa_lightning", "fit", "--config", "toy.yaml"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"},
            stderr=said,
        )
        while launcher.poll() is None and not all(file.is_file() for file in files):
            time.sleep(0.2)
        assert launcher.returncode is None, (tmp_path / "said").read_text()
        processes = [int(file.read_text()) for file in files]
        yield launcher, processes
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        launcher.wait()


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(process, seconds):
    end = time.monotonic() + seconds
    while alive(process) and time.monotonic() < end:
        time.sleep(0.1)
    return not alive(process)


@pytest.mark.parametrize(
    ("dead", "how"),
    [
        pytest.param(0, signal.SIGKILL, marks=pytest.mark.slow),
        (1, signal.SIGKILL),
        pytest.param(0, signal.SIGSTOP, marks=pytest.mark.slow),  # it answers nothing, as a machine that is gone
    ],
)
def test_a_dead_rank_is_named_and_the_other_stops(ranks, dead, how, tmp_path):
    os.kill(ranks[1][dead], how)
    assert wait_until_gone(ranks[1][1 - dead], 30)
    said = (tmp_path / "said").read_text()
    assert re.search(rf"rank {dead}( \(\S+\))? has died, so rank {1 - dead} stops", said), said


@pytest.mark.slow
def test_sigterm_to_the_launcher_stops_both_with_a_checkpoint(ranks, tmp_path):
    launcher, processes = ranks
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=60) == 143
    said = (tmp_path / "said").read_text()
    steps = re.findall(r"stopped by SIGTERM after (\d+) updates; go on with --ckpt_path last", said)
    assert len(set(steps)) == 1
    assert wait_until_gone(processes[1], 30)
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == int(steps[0])


def test_ranks_wait_for_the_last_one_in_every_stage():
    store, seen = torch.distributed.HashStore(), []

    def rank(number):
        for stage in range(2):
            time.sleep(0.3 * number)
            seen.append(("came", stage))
            _wait_for_all(store, 3)
            seen.append(("went", stage))

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    stages = [[what for what, stage in seen if stage == wanted] for wanted in range(2)]
    assert stages == [["came"] * 3 + ["went"] * 3] * 2
