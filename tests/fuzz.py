"""``make fuzz``: wrong, good and mutated input of eight kinds, in one process; each case has a number that repeats it.

Wrong input must be refused in one sentence and leave no trace; good input must be taken for what it is; mutated input
(a good one with some bytes changed) may be either. Nothing may hang, take gigabytes, or write outside of its folder.

    python -m fuzz --cases 1000 --seed 0      all kinds in turn
    python -m fuzz --only "stores 17"         one case again, with its traceback
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import audioldm_models
import command_faults
import config_faults
import data_faults
import model_faults
import run_faults
import stable_audio_3_model
import stable_audio_model
import tangoflux_checkpoint
import word_faults
from fault_case import Build, Case
from reporting.runs import write_run
from tiny_model import write_model
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.models.loading import load_parts

SECONDS, MEGABYTES = 60, 4000
"""That a case may take at most."""


@dataclass
class Kind:
    """A kind of input. ``template`` puts a good one into a new folder, for builders that change what is there."""

    wrong: dict[str, Build]
    good: dict[str, Build]
    template: Callable[[Path, Random], object] = lambda folder, _: folder.mkdir()


@dataclass
class Found:
    """What came of the cases: how many ended how, by kind, and those that ended otherwise than they should."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def kinds(home: Path) -> dict[str, Kind]:
    """The eight kinds; what their cases are copied from is made in ``home``."""
    store, runs, template = home / "store", home / "run", home / "template"
    models = [write_model(home / "tango"), audioldm_models.write_audioldm(home / "audioldm")]
    models += [audioldm_models.write_audioldm2(home / "audioldm2")]
    models += [stable_audio_model.write_model(home / "stable_audio", models[0])]
    models += [stable_audio_3_model.write_model(home / "stable_audio_3")]
    models += [tangoflux_checkpoint.write_model(home / "tangoflux", text_folder=models[0])]
    prepare_folder(ToyClips(24), store, str(models[0]), batch_size=4, shard_size=9)
    write_run(runs)
    template.mkdir()
    assert command_faults.fitted(template).read() == 0

    def checkpoint(folder: Path, _: Random) -> None:
        folder.mkdir()
        (folder.parent / "template").symlink_to(template)

    return {
        "manifests": Kind(data_faults.LISTS, data_faults.GOOD_LISTS),
        "sound": Kind(data_faults.SOUNDS, data_faults.GOOD_SOUNDS),
        "stores": Kind(data_faults.STORES, data_faults.GOOD_STORES, lambda f, _: shutil.copytree(store, f)),
        "models": Kind(
            {name: _model(damage) for name, damage in model_faults.FAULTS.items()},
            {name: _model(damage) for name, damage in model_faults.HARMLESS.items()},
            lambda f, rng: shutil.copytree(rng.choice(models), f),
        ),
        "run files": Kind(run_faults.RUNS, run_faults.GOOD_RUNS, lambda f, _: shutil.copytree(runs, f)),
        "checkpoints": Kind(command_faults.CHECKPOINTS, command_faults.GOOD_CHECKPOINTS, checkpoint),
        "configurations": Kind(config_faults.CONFIGS, config_faults.GOOD_CONFIGS),
        "words": Kind(word_faults.WORDS, word_faults.GOOD_WORDS),
    }


def _model(damage: model_faults.Damage) -> Build:
    def build(folder: Path, rng: Random) -> Case:
        damage(folder, rng)
        return Case(lambda: load_parts(folder) and "read", "read")

    return build


def mutate(folder: Path, rng: Random) -> None:
    """Changes some bytes of a file: others, more, fewer."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    if not files:
        return
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 3, 10))):
        place = rng.randrange(len(data) + 1)
        end = place + rng.choice((0, 1, 1, 4, 50))
        data[place:end] = rng.choice(
            (b"", b"", rng.randbytes(rng.randint(1, 4)), b"\xff", b"\n", b'"', b",", b"-1", b"nan")
        )
    path.write_bytes(data)


def run_case(name: str, kind: Kind, number: int, seed: int, *, home: Path) -> tuple[str, str]:
    """How a case ended, and what is wrong with that; empty if nothing is."""
    rng = Random(f"{seed} {name} {number}")
    way = rng.choices(("wrong", "good", "mutated"), (3, 1, 1))[0]
    fault = rng.choice(sorted(kind.wrong if way == "wrong" else kind.good))
    root = Path(tempfile.mkdtemp(prefix="case-", dir=home))
    folder = root / "case"
    kind.template(folder, rng)
    case = (kind.wrong if way == "wrong" else kind.good)[fault](folder, rng)
    if way == "mutated":
        mutate(root, rng)
    before = _snapshot(root)
    cwd = root.parent / f"{root.name}-cwd"
    cwd.mkdir()
    os.chdir(cwd)
    try:
        ended = _ended(case)
    finally:
        os.chdir(home)
    said = f"{name} {number} ({way}: {fault})"
    if ended[0] == "failed":
        problem = f"{said} ended in {ended[1]}"
    elif way == "wrong" and ended[0] == "taken":
        problem = f"{said} was taken"
    elif way == "good" and ended != ("taken", repr(case.expected)):
        problem = f"{said} should have given {case.expected!r}: {ended[1]}"
    elif ended[0] == "refused" and (
        "\n" in ended[1].replace("a\nb", "") or len(ended[1]) > 2000 or "Traceback" in ended[1]
    ):
        problem = f"{said} was refused in no sentence: {ended[1][:300]!r}"
    elif way == "wrong" and _snapshot(root) != before:
        problem = f"{said} was refused and left or changed {sorted(_snapshot(root) ^ before)[:3]}"
    elif any(cwd.iterdir()) or {path.name for path in home.glob("case-*")} != {root.name, cwd.name}:
        problem = f"{said} wrote outside of its folder"
    else:
        problem = ""
    for path in home.glob("case-*"):
        shutil.rmtree(path)
    return f"{way}, {ended[0]}", problem


def _ended(case: Case) -> tuple[str, str]:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
    try:
        with _limit(SECONDS), _silence():
            result = case.read()
        ended = "taken", repr(result)
    except UserError as error:
        ended = "refused", str(error)
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ended = "failed", f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"
        if "--only" in sys.argv:
            traceback.print_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    if grown > MEGABYTES:
        return "failed", f"{grown:.0f} MB of memory"
    if time.monotonic() - start > SECONDS:
        return "failed", f"{time.monotonic() - start:.0f} s"
    return ended


def _snapshot(folder: Path) -> set[tuple[str, int, int]]:
    found = set()
    for path in folder.rglob("*"):
        status = path.lstat()
        found.add(
            (
                str(path.relative_to(folder)),
                status.st_size if path.is_file() else 0,
                status.st_mtime_ns * path.is_file(),
            )
        )
    return found


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"{seconds:g} s have passed")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What good input prints and logs is of no interest here."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def fuzz(cases: int, seed: int, only: Sequence[str] = ()) -> Found:
    """Runs so many cases, the kinds in turn, or the one case ``only`` (kind, number)."""
    found, before = Found(), Path.cwd()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        home = Path(place).resolve()
        with _silence():
            all_kinds = kinds(home)
        names = list(all_kinds)
        numbered = [(names[i % len(names)], i // len(names)) for i in range(cases)]
        for name, number in [(only[0], int(only[1]))] if only else numbered:
            ended, problem = run_case(name, all_kinds[name], number, seed, home=home)
            found.counts[name, ended] += 1
            if problem:
                found.problems.append(problem)
                print(problem, flush=True)
        os.chdir(before)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=lambda text: text.rpartition(" ")[::2], default=())
    options = parser.parse_args()
    found = fuzz(options.cases, options.seed, options.only)
    for (name, ended), count in sorted(found.counts.items()):
        print(f"{name:<15}{ended:<20}{count:>5}")
    print(f"{sum(found.counts.values())} cases, {len(found.problems)} problems")
    return bool(found.problems)


if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true")
    sys.exit(main())
