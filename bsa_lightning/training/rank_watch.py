"""Detects the death of one of several processes: the others say which one died, and stop instead of waiting for it."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import Store

from bsa_lightning.common.errors import StoppedError, UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.training.lightning_internals import release_child_processes, rendezvous_store

_BEAT = 0.5
"""The time from one heartbeat of a rank to the next, in seconds."""
_EXIT_CODE = 1


class RankWatch(Callback):
    """Writes heartbeats of this rank to the store of the process group, and watches those of the other ranks.

    Without it, a collective whose peer has died fails at once on some backends, and waits for half an hour on others.

    Args:
        patience: the time without a heartbeat after which a rank counts as dead, in seconds; at least 2.
    """

    def __init__(self, patience: float = 60.0) -> None:
        check_number("patience", patience, at_least=4 * _BEAT, advice="it is in seconds")
        self.patience = patience
        self._thread: _Listener | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        del pl_module, stage
        if trainer.world_size > 1 and torch.distributed.is_initialized():
            release_child_processes()
            # The thread has its own connection to the store, since a blocking call blocks a shared one.
            self._thread = _Listener(rendezvous_store(), trainer.global_rank, trainer.world_size, self.patience)
            self._thread.start()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends this process if the exception is due to the death of another rank, since no teardown would return."""
        del trainer, pl_module
        if self._thread is None:
            return
        if isinstance(exception, (UserError, StoppedError, KeyboardInterrupt)):
            self._thread.ended.set()  # all ranks raise this, each in its own time, so that silence means nothing now
        else:
            time.sleep(6 * _BEAT)
            if gone := self._thread.silent(4 * _BEAT):
                self._thread.stop_all(gone)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        del pl_module, stage
        if self._thread is not None:  # a rank that has finished first is not dead
            _wait_for_all(rendezvous_store(), trainer.world_size)
            trainer.strategy.barrier("rank watch")
            self._thread.ended.set()
            self._thread.join()
            self._thread = None


def _wait_for_all(store: Store, world_size: int) -> None:
    """Waits until this has been called on every rank, for as long as that takes.

    A barrier gives up after half an hour, in which the first rank may still compute the differences of a test.
    """
    arrived = store.add("rank-watch/arrived", 1)
    wanted = -(-arrived // world_size) * world_size  # of all stages so far
    while arrived < wanted:
        time.sleep(_BEAT / 5)
        arrived = store.add("rank-watch/arrived", 0)


class _Listener(threading.Thread):
    def __init__(self, store: Store, rank: int, world_size: int, patience: float) -> None:
        super().__init__(daemon=True, name="rank-watch")
        self.ended = threading.Event()
        self._store = store
        self._rank = rank
        self._keys = [f"rank-watch/{other}" for other in range(world_size)]
        self._patience = patience
        # All ranks are alive when a run is set up, so that their silence is counted from now on.
        self._heard = {other: (b"", time.monotonic()) for other in range(world_size) if other != rank}

    def run(self) -> None:
        threading.Thread(target=self._judge, daemon=True, name="rank-watch-judge").start()
        beats = 0
        while not self.ended.is_set():
            beats += 1
            try:
                self._store.set(self._keys[self._rank], f"{beats} {socket.gethostname()}")
                self._listen()
            except RuntimeError:  # the store lives in the first process
                if not self.ended.wait(2 * _BEAT):
                    self.stop_all([0])
            self.ended.wait(_BEAT)

    def _judge(self) -> None:
        """Looks for silent ranks in a thread that makes no call to the store, which blocks if the first rank hangs."""
        while not self.ended.wait(_BEAT):
            if gone := self.silent(self._patience):
                self.stop_all([0] if 0 in gone else gone)

    def silent(self, seconds: float) -> list[int]:
        """Returns the ranks whose last heartbeat is more than this many seconds ago."""
        now = time.monotonic()
        return [rank for rank, (_, last) in list(self._heard.items()) if now - last > seconds]

    def stop_all(self, gone: Iterable[int]) -> None:
        """Prints which ranks have died, and ends this process."""
        names = [f"rank {rank}{self._host(rank)}" for rank in gone]
        print(
            f"lightning: {', '.join(names)} has died, so rank {self._rank} stops; its own output may say"
            " why; go on with --ckpt_path last",
            file=sys.stderr,
            flush=True,
        )
        os._exit(_EXIT_CODE)

    def _listen(self) -> None:
        now = time.monotonic()
        for rank, (before, _) in list(self._heard.items()):
            if before or self._store.check([self._keys[rank]]):
                beat = self._store.get(self._keys[rank])
                if beat != before:
                    self._heard[rank] = (beat, now)

    def _host(self, rank: int) -> str:
        said = self._heard[rank][0].split() if rank in self._heard else []
        return f" ({said[1].decode()})" if said else ""
