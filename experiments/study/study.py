"""``make study``: runs what is not done yet, and reports each part; stopped at any time, it goes on where it was.

``python -m experiments.study.study small`` is a small version of it, of a few minutes.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiments.methods import grid as methods
from experiments.study.gather import badness, errors_at_round_ends, write_rates, write_scores
from experiments.study.run import DEMO, RATES, STUDY, Run
from experiments.weightings.grid import PARTS as OF_WEIGHTINGS
from experiments.weightings.grid import TUNING as OF_RATES

ROOT = Path("runs/studies")
ESC10 = Path("runs/esc10/teacher/model")
PARTS: dict[str, Callable[[], Iterable[Run]]] = {**OF_WEIGHTINGS}
TUNING: dict[str, Callable[[], Iterable[Run]]] = {**OF_RATES}
for _part in methods.TEACHERS:
    PARTS[_part] = functools.partial(methods.runs, _part)
    TUNING[f"{_part}-rates"] = functools.partial(methods.tuning, _part)
REFUSED = 2
"""Exit code of a command that says in a sentence why it stopped."""
DIVERGED = ("had no usable gradient", "weights that are not finite")
"""Of the sentence, where the rate was too high."""


def command(words: list[str], log: Path) -> None:
    """``lightning`` with these words, in a process of its own, with what it says in ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    from bsa_lightning.cli.main import main

    sys.argv = ["lightning", *words]
    sys.exit(main())


class Study:
    """Runs and where they are.

    Args:
        jobs: how many run at once, each on an equal share of the cores.
        root: the folder of all runs.
        configs: further configurations, which all runs take, e.g. an embedding whose weights are yours.
    """

    def __init__(self, jobs: int, root: Path = ROOT, configs: Sequence[str] = ()) -> None:
        self.jobs, self.root, self.configs = jobs, root, configs
        # Processes that are forked from one that has imported everything start at once.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["bsa_lightning.cli.fit", "diffusers", "transformers"])

    def lightning(self, words: list[str], log: Path) -> int:
        """The exit code of a command."""
        process = self.processes.Process(target=command, args=(words, log))
        process.start()
        process.join()
        return process.exitcode or 0

    def run_all(self, runs: list[Run]) -> None:
        """Those that are not done, ``jobs`` at once; the first alone, since it prepares data that all share."""
        todo = [run for run in runs if not self.is_done(run)]
        if not todo:
            return
        print(f"{todo[0].part}: {len(todo)} of {len(runs)} runs to do", flush=True)
        self.run(todo[0])
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                list(pool.map(self.run, todo[1:]))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def is_done(self, run: Run) -> bool:
        """Whether nothing is left to do; refuses what was done with other options."""
        done = run.folder(self.root) / "done"
        then = done.read_text() if done.is_file() else ""  # of a study before it was written, too
        if then not in ("", " ".join(run.options)):
            raise SystemExit(f"{done.parent} was run with the options {then!r}; move it out of the way")
        return done.is_file()

    def run(self, run: Run) -> None:
        began = time.monotonic()
        folder = run.folder(self.root)
        log = folder.with_name(f"{run.seed}.log")
        rate = () if run.weighting is None else ("--model.optimizer.init_args.lr", tuned_rate(run.weighting, run.rates))
        configs = [word for config in (DEMO, STUDY, *self.configs) for word in ("--config", config)]
        words = [*configs, *run.options, *rate, "--seed_everything", str(run.seed)]
        code = self.lightning(["fit", *words, "--run", str(folder), "--ckpt_path", "last"], log)
        if code == 0 and run.scored:
            code = self.lightning(["test", "--config", str(folder / "config.yaml")], log)
        # A rate at which training was given up is simply bad.
        diverged = code == REFUSED and not run.scored and any(sign in last_line(log) for sign in DIVERGED)
        if code and not diverged:
            raise SystemExit(f"{folder} ended with {code}: {last_line(log)}")
        (folder / "done").write_text(" ".join(run.options))
        (folder / "checkpoints" / "last.ckpt").unlink(missing_ok=True)  # the largest file, of use to nobody now
        print(f"  {folder}: {time.monotonic() - began:.0f} s", flush=True)


def last_line(log: Path) -> str:
    return log.read_text().strip().replace("\r", "\n").splitlines()[-1]


def tuned_rate(weighting: str, rates: str) -> str:
    """The rate whose trajectory errors have the lowest geometric mean over the rounds, on the held-out seed."""
    runs = {run.setting: run for run in TUNING[rates]()}
    tried = [rate for rate in RATES if f"{weighting}-{rate}" in runs]

    def of(rate: str) -> float:
        run = runs[f"{weighting}-{rate}"]
        return badness(errors_at_round_ends(run.folder(ROOT)), run.num_rounds)

    best = min(tried, key=of)
    if math.isinf(of(best)):
        raise SystemExit(f"{weighting} trained to its end at none of the rates {', '.join(tried)}; try lower ones")
    return best


def main() -> None:
    """Parses ``sys.argv``, runs and reports."""
    parser = argparse.ArgumentParser(prog="study", description=__doc__)
    parser.add_argument("parts", nargs="*", default=[], help=f"of {', '.join(PARTS)}; none: all but the small one")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--config", action="append", default=[], help="a configuration that all runs take, too")
    arguments = parser.parse_args()
    parts = arguments.parts or [part for part in PARTS if part != "small"]
    if unknown := [part for part in parts if part not in PARTS]:
        raise SystemExit(f"there is no part {unknown[0]}; the parts are {', '.join(PARTS)}")
    study = Study(arguments.jobs, configs=arguments.config)
    for part in parts:
        if part == "esc10" and not ESC10.is_dir():
            print(f"esc10 is left out: {ESC10} is not there; experiments/esc10/README.md says how it is made")
            continue
        runs = list(PARTS[part]())
        for rates in sorted({run.rates for run in runs if run.weighting is not None}):
            study.run_all(tuned := list(TUNING[rates]()))
            write_rates(tuned, ROOT, ROOT / rates / "rates.csv")
        study.run_all(runs)
        folders = [str(run.folder(ROOT)) for run in runs]
        report = ROOT / part / "report"
        study.lightning(["report", *folders, "--out", str(report)], ROOT / part / "report.log")
        write_scores(runs, ROOT, report / "scores.csv")
        print(f"{part}: {report}", flush=True)


if __name__ == "__main__":
    main()
