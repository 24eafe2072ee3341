"""Mutates the code, runs the tests that may see it, and tells which mutants survive."""

import argparse
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true", OMP_NUM_THREADS="1")
os.environ.update(TOKENIZERS_PARALLELISM="false")

from mutants.equivalents import LIST, read_equivalents
from mutants.operators import Mutant, mutants_of
from mutants.runs import FAULT, Runner, Running, Test
from mutants.targets import targets

ROOT = Path(__file__).parent.parent.parent
Key = tuple[str, str, str, str]


def tests_of(mutant: Mutant, tests: list[Test]) -> list[Test]:
    """The tests that execute the changed statement, file by file, the quickest first."""
    lines = None if mutant.lines is None else {(mutant.file, line) for line in mutant.lines}
    seeing = [test for test in tests if lines is None or not test.lines.isdisjoint(lines)]
    whole: dict[str, float] = {}
    for test in seeing:
        whole[test.file] = whole.get(test.file, 0.0) + test.seconds
    return sorted(seeing, key=lambda test: (whole[test.file], test.seconds))


def told(mutant: Mutant) -> str:
    """A mutant as the output, and ``--again``, have it."""
    return f"{mutant.file}:{mutant.line} {mutant.function}\n- {mutant.before}\n+ {mutant.after}"


class Mutation:
    """Runs mutants, ``workers`` at a time."""

    def __init__(self, runner: Runner, workers: int) -> None:
        self._runner, self._workers = runner, workers
        self.survivors: list[Mutant] = []
        self.killed: list[Mutant] = []
        self.hung = 0

    def run(self, file: str, found: list[Test], chosen: list[Mutant], *, quiet: set[Key]) -> None:
        """Runs the chosen mutants of a file; survivors are told at once, but for those in ``quiet``."""
        began, before = time.monotonic(), len(self.survivors)
        self._runner.control(file, sorted(found, key=lambda test: test.seconds)[:3])
        waiting, running = list(reversed(chosen)), {}
        while waiting or running:
            while waiting and len(running) < self._workers:
                mutant = waiting.pop()
                if seeing := tests_of(mutant, found):
                    running[self._runner.test(mutant, seeing)] = mutant
                else:
                    self._survived(mutant, "no test executes it", quiet)
            for process in list(running):
                if (code := self._runner.ended(process)) is not None:
                    self._ended(process, running.pop(process), code, quiet)
            time.sleep(0.002)
        seconds, survivors = time.monotonic() - began, len(self.survivors) - before
        print(f"{file}: {len(chosen)} mutants, {survivors} survived, {seconds:.0f} s", flush=True)

    def _ended(self, process: Running, mutant: Mutant, code: int, quiet: set[Key]) -> None:
        if code in (0, 5):
            self._survived(mutant, "no test fails", quiet)
        elif code in (4, FAULT):
            raise SystemExit(f"pytest did not run: {(process.folder / 'output').read_text()[-2000:]}")
        else:
            self.killed.append(mutant)
            self.hung += time.monotonic() > process.deadline
        shutil.rmtree(process.folder, ignore_errors=True)

    def _survived(self, mutant: Mutant, why: str, quiet: set[Key]) -> None:
        self.survivors.append(mutant)
        if mutant.key not in quiet:
            print(f"{told(mutant)}\n# {why}\n", flush=True)


def main() -> int:
    """Parses ``sys.argv``, mutates, and compares with the list; 1 if that is not what was found."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the paths of the files to mutate; all without")
    parser.add_argument("--sample", type=int, default=None, help="so many mutants of all, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--again", type=Path, default=None, help="only the survivors that this earlier output tells")
    parser.add_argument("--listed", action="store_true", help=f"only the mutants in {LIST.name}")
    arguments = parser.parse_args()
    began = time.monotonic()
    chosen = targets(ROOT, arguments.names)
    mutants = [mutant for file in chosen for mutant in mutants_of(ROOT, file)]
    listed = {entry.key for entry in read_equivalents() if entry.file in chosen}
    missing = listed - {mutant.key for mutant in mutants}
    if arguments.again:
        text = arguments.again.read_text()
        mutants = [m for m in mutants if f"{m.function}\n- {m.before}\n+ {m.after}\n" in text]
    if arguments.listed:
        mutants = [mutant for mutant in mutants if mutant.key in listed]
    if arguments.sample is not None:
        mutants = random.Random(arguments.seed).sample(mutants, min(arguments.sample, len(mutants)))
    os.chdir(ROOT)
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    runner = Runner(ROOT, folder)
    mutation = Mutation(runner, arguments.workers)
    by_file = {file: [mutant for mutant in mutants if mutant.file == file] for file in chosen}
    try:
        wanted = {file: tests for file, tests in chosen.items() if by_file[file]}
        found = runner.baseline(list(wanted), list(dict.fromkeys(chain(*wanted.values()))), arguments.workers)
        print(f"{len(found)} tests pass on the code as it is, {time.monotonic() - began:.0f} s", flush=True)
        for file, tests in wanted.items():
            mutation.run(file, [test for test in found if test.file in tests], by_file[file], quiet=listed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    survived = {mutant.key for mutant in mutation.survivors}
    stale = listed & {mutant.key for mutant in mutation.killed} - survived
    for key, why in [*((key, "is no mutant any more") for key in missing), *((key, "is killed now") for key in stale)]:
        print(f"{LIST.name}: an entry {why}: {' | '.join(key)}")
    unlisted = len(survived - listed)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{len(mutants)} mutants: {len(mutation.killed)} killed ({mutation.hung} of them hung),"
        f" {len(mutation.survivors)} survived, {unlisted} of them not in {LIST.name};"
        f" {used.ru_utime + used.ru_stime:.0f} s of CPU, {time.monotonic() - began:.0f} s",
    )
    return int(bool(unlisted or missing or stale))


if __name__ == "__main__":
    sys.exit(main())
