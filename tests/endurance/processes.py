"""One process that has imported everything forks those that run commands: starting one anew takes many seconds."""

import contextlib
import gc
import importlib
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from ports import free_port

from endurance.jobs import Job
from endurance.moments import Moment, Watch

SECONDS_TO_STOP = 60.0
"""How long a rank may go on after another one died, and any command may take beyond what is usual."""


@dataclass
class Ended:
    """How the processes of one command ended; a negative code is the signal that ended it."""

    codes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    survivors: str = ""

    @property
    def killed(self) -> bool:
        return any(code < 0 for code in self.codes)


def fork(body: Callable[[], int], log: Path) -> int:
    """The process that runs ``body`` and ends with the code it returns; its output goes to the end of ``log``."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = body()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(
    job: Job,
    folder: Path,
    *,
    ranks: int = 1,
    resumed: bool = False,
    moment: Moment | None = None,
    census: Path | None = None,
    log: Path,
) -> Ended:
    """Runs the job's command in ``folder`` to its end, or to the moment.

    Args:
        job: what to run.
        folder: where.
        ranks: how many processes.
        resumed: go on with what is there.
        moment: to die at.
        census: if given, a file for each rank with what it reached, and one with the modules it imported.
        log: of what the processes say, one a rank.
    """
    port = free_port()
    pids: list[int] = []
    for rank in range(ranks):

        def body(rank: int = rank) -> int:
            with contextlib.suppress(OSError):  # the parent does the same, whoever comes first
                os.setpgid(0, pids[0] if pids else 0)
            if ranks > 1:
                _join(rank, ranks, port)
            os.chdir(folder)
            sys.argv = job.words(resumed=resumed, ranks=ranks)
            mine = moment if moment and moment.rank == rank else None
            Watch(folder, mine, census and Path(f"{census}.{rank}")).start()
            from bsa_lightning.cli.main import main

            code = main()
            if census:
                Path(f"{census}.modules").write_text("\n".join(sorted(sys.modules)))
            return code

        pids.append(fork(body, Path(f"{log}.{rank}")))
        with contextlib.suppress(OSError):
            os.setpgid(pids[-1], pids[0])
    return _wait(pids, moment)


def _wait(pids: list[int], moment: Moment | None) -> Ended:
    began = time.monotonic()
    codes: dict[int, int] = {}
    clock = moment.extra if moment and moment.kind == "clock" else math.inf
    alone = moment is not None and moment.alone
    died = math.inf
    ended = Ended()
    while running := [pid for pid in pids if pid not in codes]:
        for pid in running:
            if (found := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(found[1])
        running = [pid for pid in running if pid not in codes]
        now = time.monotonic() - began
        if any(codes.values()):
            died = min(died, now)
        if now >= clock:
            clock = math.inf
            _kill([pid for pid in running if not alone or pid == pids[moment.rank]])
        elif not alone and min(codes.values(), default=0) < 0:
            _kill(running)  # a lost machine loses all its ranks
        elif (running and now - died > SECONDS_TO_STOP) or now > 5 * SECONDS_TO_STOP:
            ended.survivors = f"rank {pids.index(running[0])} hung and was killed after {now - min(died, now):.0f} s"
            _kill(running)
            died = math.inf
        time.sleep(0.005)
    ended.codes, ended.seconds = [codes[pid] for pid in pids], time.monotonic() - began
    if alone and ended.killed and not ended.survivors:
        ended.survivors = f"the others stopped {ended.seconds - died:.1f} s later, {ended.codes}"
    return ended


def _kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _join(rank: int, ranks: int, port: int) -> None:
    """What torchrun tells a process it starts, and what Lightning reads when it is imported."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", ROLE_RANK=str(rank),
        WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks), GROUP_WORLD_SIZE="1", ROLE_WORLD_SIZE=str(ranks),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="endurance",
        TORCHELASTIC_RESTART_COUNT="0", TORCHELASTIC_MAX_RESTARTS="0",
    )  # fmt: skip
    rank_zero_only.rank = rank


def import_everything(names: list[str]) -> None:
    """Imports what a run has imported, so that later ones need not.

    Raises:
        RuntimeError: if that started a thread: forking would not be safe.
    """
    for name in names:
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    torch.set_num_threads(1)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
        raise RuntimeError(f"{threads} threads run already, so that forking is not safe")
    gc.collect()
    gc.freeze()
