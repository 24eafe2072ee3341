"""Kills runs and compares what they end in; exits with 1 if any is not as the run that nobody touched."""

import argparse
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

from bsa_lightning.cli import (
    fit,  # noqa: F401 - what children need not import again
    prepare,  # noqa: F401 - what children need not import again
)
from endurance.choosing import CLASSICS, Census, plan, short
from endurance.contents import contents, differences, state
from endurance.jobs import Job, earlier, jobs, write_inputs
from endurance.moments import Moment
from endurance.processes import fork, import_everything, run

ON_TWO = ("baked", "embedded", "denoising", "adaptive", "lora")
"""What is run on two processes too, where each attempt takes three times as long."""


@dataclass
class Subject:
    """A job on so many ranks, and what its untouched run gave."""

    name: str
    job: Job
    ranks: int
    wanted: dict[str, list[str]]
    census: Census


class Endurance:
    """Kills and compares.

    Args:
        folder: for everything; runs that ended well are removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs = folder / "inputs"
        self.inputs.mkdir(parents=True)
        pid = fork(lambda: write_inputs(self.inputs) or 0, folder / "inputs.log")
        if os.waitpid(pid, 0)[1]:
            raise SystemExit(f"the inputs could not be made; see {folder / 'inputs.log'}")
        self.jobs = jobs(self.inputs)
        self.subjects: dict[tuple[str, int], Subject] = {}
        self.failures: list[str] = []
        self.attempts = self.kills = 0

    def subject(self, name: str, ranks: int, *, again: bool = True) -> Subject:
        """Runs the job untouched; ``again``: once more, with what the first run has imported, and compares."""
        if (name, ranks) in self.subjects:
            return self.subjects[name, ranks]
        job = self.jobs[name]
        if job.earlier is not None and not job.earlier.exists():
            self._untouched(earlier(self.inputs), job.earlier, 1)
        folder = self.folder / f"untouched-{name}-{ranks}"
        census = self._untouched(job, folder, ranks)
        wanted = contents(folder)
        if again:
            shutil.rmtree(folder)
            census = self._untouched(job, folder, ranks)
            if told := differences(contents(folder), wanted):
                raise SystemExit(f"{name} on {ranks} process(es) differs from itself:\n" + "\n".join(told))
        print(f"{name}, {ranks} process(es), untouched: {census.seconds:.1f} s", flush=True)
        self.subjects[name, ranks] = Subject(name, job, ranks, wanted, census)
        return self.subjects[name, ranks]

    def _untouched(self, job: Job, folder: Path, ranks: int) -> Census:
        job.write(folder)
        census, log = (self.folder / f"{folder.name}.{kind}" for kind in ("census", "log"))
        for file in self.folder.glob(f"{census.name}*"):
            file.unlink()
        ended = run(job, folder, ranks=ranks, census=census, log=log)
        if any(ended.codes):
            text = Path(f"{log}.0").read_text()
            raise SystemExit(f"the untouched run in {folder} ended with {ended.codes}:\n{text[-3000:]}")
        import_everything(Path(f"{census}.modules").read_text().split("\n"))
        return Census(census, ended.seconds)

    def afresh(self, subject: Subject) -> None:
        """The job in processes that were started and not forked, with Python's hashes of strings anew."""
        folder = self.folder / f"afresh-{subject.name}-{subject.ranks}"
        subject.job.write(folder)
        words = [sys.executable, "-m", "bsa_lightning", *subject.job.words(resumed=False, ranks=subject.ranks)[1:]]
        path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "random"}
        ended = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        trouble = [f"it ended with {ended.returncode}: {ended.stderr[-300:]}"] if ended.returncode else []
        words = f"{subject.name}, {subject.ranks}: started afresh, not forked"
        self._conclude(words, trouble + differences(contents(folder), subject.wanted), words, folder)

    def attempt(self, subject: Subject, moments: list[Moment]) -> None:
        """Dies at each moment in turn, goes on each time, and compares in the end."""
        self.attempts += 1
        folder = self.folder / f"attempt-{self.attempts:03d}"
        log = self.folder / f"{folder.name}.log"
        subject.job.write(folder)
        told, trouble = [], []
        for i, moment in enumerate([*moments, None]):
            ended = run(subject.job, folder, ranks=subject.ranks, resumed=i > 0, moment=moment, log=log)
            if subject.job.earlier and i and set(ended.codes) == {2}:
                told.append("refused to go on, so it was replaced again")
                ended = run(subject.job, folder, ranks=subject.ranks, moment=moment, log=log)
            if ended.killed:
                self.kills += 1
                told.append(f"{moment} ({ended.seconds:.1f} s): {state(folder)}")
                told += [ended.survivors] if ended.survivors else []
            elif moment is not None:
                told.append(f"{moment}: ended with {ended.codes}")
            if "hung" in ended.survivors:
                trouble.append(ended.survivors)
            if not ended.killed and any(ended.codes):
                trouble.append(f"{'resumed' if i else 'started'}, it ended with {ended.codes}: {_last_words(log)}")
                break
        trouble += differences(contents(folder), subject.wanted)
        again = f"{subject.name}/{subject.ranks}/" + ";".join(map(str, moments))
        self._conclude(f"{subject.name}, {subject.ranks}: {'; '.join(told)}", trouble, f"--only '{again}'", folder)

    def _conclude(self, told: str, trouble: list[str], again: str, folder: Path) -> None:
        print(f"[{self.attempts:3d}] {told} -> {'FAILED' if trouble else 'same bytes'}", flush=True)
        for line in trouble[:8]:
            print(f"        {line[:300]}", flush=True)
        if trouble:
            self.failures.append(again)
            print(f"        again: {again}; kept: {folder}", flush=True)
        else:
            shutil.rmtree(folder)


def _last_words(log: Path) -> str:
    lines = [line for file in sorted(log.parent.glob(f"{log.name}.*")) for line in file.read_text().splitlines()]
    return next((line for line in reversed(lines) if line.strip()), "")


def one_by_one(endurance: Endurance, arguments: argparse.Namespace) -> None:
    """Attempts as a failure printed them."""
    for words in arguments.only:
        name, ranks, moments = words.split("/", 2)
        subject = endurance.subject(name, int(ranks))
        endurance.attempt(subject, [Moment.parse(text) for text in moments.split(";") if text])


def short_form(endurance: Endurance, arguments: argparse.Namespace) -> None:
    """What the test suite has time for."""
    for ranks in arguments.ranks:
        subject = endurance.subject("baked", ranks, again=False)
        for moments in short(subject.census, random.Random(f"{arguments.seed} {ranks}"), ranks=ranks):
            endurance.attempt(subject, moments)


def full_form(endurance: Endurance, arguments: argparse.Namespace) -> None:
    """All jobs, and the first of them most."""
    for ranks in arguments.ranks:
        names = arguments.jobs or [name for name in endurance.jobs if ranks == 1 or name in ON_TWO]
        for name in names:
            share = 1 if len(names) == 1 else 1 / 2 if name == names[0] else 1 / 2 / (len(names) - 1)
            kills, chance = math.ceil(arguments.kills * share), random.Random(f"{arguments.seed} {ranks} {name}")
            subject = endurance.subject(name, ranks)
            if name == names[0]:
                endurance.afresh(subject)
            clears = subject.job.earlier is not None
            for moments in plan(subject.census, kills, chance, ranks=ranks, clears=clears):
                endurance.attempt(subject, moments)
    if arguments.jobs is None:
        unreached = {
            pattern
            for _, pattern, _ in CLASSICS
            if not any(subject.census.matching(pattern) for subject in endurance.subjects.values())
        }
        endurance.failures += [f"no job reaches {pattern} any more" for pattern in unreached]
    if endurance.kills < 3 / 4 * arguments.kills * len(arguments.ranks):
        endurance.failures.append("far fewer moments were reached than were chosen")
    for failure in endurance.failures:
        print(failure, flush=True)


def main() -> int:
    """Parses ``sys.argv``, kills, compares and tells."""
    parser = argparse.ArgumentParser(prog="endurance", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments")
    parser.add_argument("--short", action="store_true", help="a few kills in a row on one job")
    parser.add_argument("--kills", type=int, default=40, help="at least so many with each number of processes")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    parser.add_argument("--jobs", nargs="+", default=None, help="which jobs; the first gets half of the kills")
    parser.add_argument("--only", nargs="+", default=[], help="JOB/RANKS/MOMENT;MOMENT... as a failure prints it")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; what failed stays there")
    arguments = parser.parse_args()
    began = time.monotonic()
    made = Path(tempfile.mkdtemp(prefix="endurance-")) if arguments.folder is None else arguments.folder
    os.environ["XDG_CACHE_HOME"] = str(made.resolve() / "cache")  # what killed runs keep is compared with nothing
    endurance = Endurance(made.resolve())
    (one_by_one if arguments.only else short_form if arguments.short else full_form)(endurance, arguments)
    print(
        f"{endurance.kills} kills in {endurance.attempts} runs, seed {arguments.seed}, "
        f"{time.monotonic() - began:.0f} s: {len(endurance.failures)} ended otherwise than the run nobody touched",
        flush=True,
    )
    if not endurance.failures and arguments.folder is None:
        shutil.rmtree(made)
    return int(bool(endurance.failures))


if __name__ == "__main__":
    sys.exit(main())
