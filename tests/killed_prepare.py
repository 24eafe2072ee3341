"""Prepares stores, killed at random moments and started again, as a script: one start of python pays for all."""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from toy_clips import ToyClips

from bsa_lightning.data.index import INDEX
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.teachers.folder import load_codec, load_conditioner


def begin(folder, teacher):
    """A process that prepares the store."""
    if process := os.fork():
        return process
    try:
        prepare_folder(ToyClips(24), folder, teacher, batch_size=4, shard_size=9)
    finally:
        os._exit(0)


def main(base, teacher, num_stores):
    """Each store is finished only after two processes were killed at work on it."""
    torch.set_num_threads(1)
    load_codec(teacher), load_conditioner(teacher)  # what they import is there before anything is timed
    start = time.monotonic()
    os.waitpid(begin(base / "timed", teacher), 0)
    seconds = time.monotonic() - start
    moments = random.Random(0)
    for number in range(num_stores):
        folder, met = base / f"store-{number}", 0
        while met < 2:
            process = begin(folder, teacher)
            time.sleep(moments.uniform(0.05, 0.8) * seconds)
            os.kill(process, signal.SIGKILL)
            met += os.WIFSIGNALED(os.waitpid(process, 0)[1])
            if (folder / INDEX).exists():  # it came too late for this one
                shutil.rmtree(folder)
                met = 0
        os.waitpid(begin(folder, teacher), 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
