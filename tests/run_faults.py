"""Damaged run folders, and odd ones that are good: see data_faults.

The folder is a run as ``reporting.runs.write_run`` makes it. A damaged one must be refused by ``lightning report``,
a good one is reported, and ``case.read()`` returns the printed table's number of rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import soundfile
from fault_case import Build, Case

from bsa_lightning.reporting.report import report
from bsa_lightning.reporting.results import read_results
from bsa_lightning.reporting.table import cells

CSVS = ("scores.csv", "metrics.csv", "differences.csv")
NUMBERS = {"scores.csv": "num_steps", "metrics.csv": "val/num_steps", "differences.csv": "low"}
ROWS = 3


def read(run: Path) -> int:
    report([run], out=run / "out")
    assert (run / "out" / "index.html").stat().st_size > 1000
    return len(cells(read_results([run]))[1])


def damage(change: Callable[[Path, Random], object]) -> Build:
    def build(run: Path, rng: Random) -> Case:
        changed = change(run, rng)
        where = changed if isinstance(changed, Path) else run
        return Case(lambda: read(where), ROWS)

    return build


def table(change: Callable[[list[list[str]], Random, str], object], *names: str) -> Build:
    """Changes the cells of a CSV file of the run."""

    def edit(run: Path, rng: Random) -> None:
        path = run / rng.choice(names or CSVS)
        lines = [line.split(",") for line in path.read_text().splitlines()]
        change(lines, rng, path.name)
        path.write_text("".join(",".join(cells) + "\n" for cells in lines))

    return damage(edit)


def content(change: Callable[[bytes, Random], bytes], *names: str) -> Build:
    """Changes the bytes of a file of the run."""

    def edit(run: Path, rng: Random) -> None:
        path = run / rng.choice(names or (*CSVS, "config.yaml", "scores.json"))
        path.write_bytes(change(path.read_bytes(), rng))

    return damage(edit)


def text(name: str, *choices: str) -> Build:
    """Writes one of some texts to a file of the run."""
    return damage(lambda run, rng: (run / name).write_text(rng.choice(choices)) and None)


def cell(*values: str, names: tuple[str, ...] = CSVS) -> Build:
    """Puts one of some values where a number belongs."""

    def change(lines: list[list[str]], rng: Random, name: str) -> None:
        column = lines[0].index(NUMBERS[name])
        rng.choice(lines[1:])[column] = rng.choice(values)

    return table(change, *names)


def as_folder(run: Path, rng: Random) -> None:
    path = run / rng.choice((*CSVS, "config.yaml"))
    path.unlink()
    path.mkdir()


def sound(change: Callable[[Path, Random], object]) -> Build:
    return damage(lambda run, rng: change(rng.choice(sorted(run.rglob("*.wav"))), rng) and None)


def fifo(path: Path, _rng: Random) -> None:
    path.unlink()
    os.mkfifo(path)


def renamed(*names: str) -> Build:
    return damage(
        lambda run, rng: run.rename(os.fsdecode(os.fsencode(run.parent) + b"/" + rng.choice(names).encode("latin-1")))
    )


RUNS: dict[str, Build] = {
    "a row too short": table(lambda lines, rng, _: rng.choice(lines[1:]).pop()),
    "a cell too many": table(lambda lines, rng, _: rng.choice(lines[1:]).append("1")),
    "a column twice": table(lambda lines, _, __: [row.append(row[0]) for row in lines]),
    "a column without which nothing is known": table(
        lambda lines, _, name: [row.pop(0) for row in lines] if name != "differences.csv" else [r.pop(3) for r in lines]
    ),
    "text for a number": cell("four", "4 steps", "0x10", "1_0"),
    "no number at all": cell("nan", "inf", "-inf", "NaN", names=("scores.csv", "differences.csv")),
    "a fraction or less than none": cell("-4", "4.5", "1e1", "", names=("scores.csv",)),
    "a metric beyond all bounds": table(lambda lines, rng, _: rng.choice(lines[1:]).__setitem__(-1, "1e300"), CSVS[0]),
    "a metric that is none": table(
        lambda lines, rng, _: rng.choice(lines[1:]).__setitem__(-1, rng.choice(["nan", "inf", "x"])), "scores.csv"
    ),
    "a repeat twice": table(lambda lines, rng, _: lines.append(list(rng.choice(lines[1:]))), "scores.csv"),
    "a system without a name": table(lambda lines, rng, _: rng.choice(lines[1:]).__setitem__(0, ""), "scores.csv"),
    "clips of another number": table(
        lambda lines, _, __: lines[3].__setitem__(lines[0].index("num_clips"), "63"), "scores.csv"
    ),
    "a quote that never ends": content(lambda data, _: data.rstrip(b"\n") + b'\n"', *CSVS[::2]),
    "the last cell cut short": content(lambda data, _: data.rstrip(b"\n")[:-1], *CSVS[::2]),
    "a NUL": content(lambda data, rng: _inserted(data, b"\0", rng), *CSVS),
    "not UTF-8": content(lambda data, rng: _inserted(data, b"\xff", rng)),
    "another encoding": content(lambda data, _: data.decode().encode("utf-16")),
    "nothing in it": content(lambda _, __: b"", "scores.csv", "scores.json"),
    "random bytes": content(lambda _, rng: b"\x80" + rng.randbytes(500)),
    "a folder for a file": damage(as_folder),
    "a configuration of another form": text(
        "config.yaml",
        *("- a\n", "model: x\n", "model: [1]\n", "model: {init_args: [1]}\n", "seed_everything: x\n", "a: [\n"),
        *("a: &a [*a]\n", "seed_everything: -1\n", "data: 3\nseed_everything: 0\n"),
        *("trainer: x\nseed_everything: 0\n", "a: 1\na: 2\n"),
    ),
    "a card of another form": text("scores.json", "[]", "{", '"x"', "nul", '{"a": 1} x'),
    "an environment of another form": text(
        "environment.json", "[]", "{", '{"packages": [1]}', '{"git_revision": "a", "git_changes": "x"}'
    ),
    "captions of another form": damage(
        lambda run, rng: (run / "samples" / "captions.json").write_text(
            rng.choice(["[]", "{", '{"00-a-dog-barks.wav": 3}', '{"00-a-dog-barks.wav": ""}'])
        )
        and None
    ),
    "text as a sound": sound(lambda path, _: path.write_text("no sound")),
    "half a sound": sound(lambda path, _: path.write_bytes(path.read_bytes()[:30])),
    "a sound of nothing": sound(lambda path, _: soundfile.write(path, np.zeros(0), 16_000)),
    "a sound that is no number": sound(
        lambda path, rng: soundfile.write(
            path, np.full(9000, rng.choice([np.nan, np.inf, 1e30])), 16_000, subtype="FLOAT"
        )
    ),
    "a sound of an odd rate": sound(lambda path, rng: soundfile.write(path, np.zeros(9), rng.choice([1, 8, 100]))),
    "a pipe for a sound": sound(fifo),
}  # fmt: skip


def _inserted(data: bytes, what: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + what + data[place:]


def _one_caption(run: Path, _rng: Random) -> None:
    names = {path.name for path in (run / "samples").rglob("*.wav")}
    (run / "samples" / "captions.json").write_text(json.dumps(dict.fromkeys(names, "A dog barks")))


GOOD_RUNS: dict[str, Build] = {
    "as it was written": damage(lambda *_: None),
    "odd names": renamed("a|b", "$x^2$", "$", "{run}", "a b", "\xe9", "\xc3\xa9", "<i>", "%s", "a\nb", "0", "-"),
    "two clips of one caption": damage(_one_caption),
    "a last line that is being written": content(lambda data, _: data + b"60,4", "metrics.csv"),
    "a loss that is none": content(lambda data, _: data + b"60,4.0,nan,0.2\n", "metrics.csv"),
    "saved on Windows": content(lambda data, _: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"), *CSVS),
    "no sounds": damage(lambda run, _: (run / "samples").rename(run / "elsewhere") and None),
    "only scores": damage(
        lambda run, _: [(run / n).unlink() for n in (*CSVS[1:], "config.yaml", "scores.json")] and None
    ),
    "no configuration in it": text("config.yaml", "", "# nothing\n", "seed_everything: null\nmodel: null\n"),
}
