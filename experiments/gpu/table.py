"""The results of ``make gpu`` as a page: ``python -m experiments.gpu.table FOLDER [PAGE]``."""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def read(path: Path) -> list[Result]:
    """The lines of a file of JSON lines; none if there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def page(folder: Path, ends: list[str]) -> Iterator[str]:
    """The lines of the page."""
    results = read(folder / "full_size.jsonl")
    device = next((result["name"] for result in results if result["what"] == "device"), "no device")
    yield f"# On {device}\n"
    yield from (f"- {end}" for end in ends)
    yield from tests(read(folder / "tests.jsonl"))
    yield from full_size(results)
    yield from study(folder / "study" / "scores.csv")


def tests(results: list[Result]) -> Iterator[str]:
    """How many tests passed, and by name those that did not."""
    if not results:
        return
    outcomes = Counter(result["outcome"] for result in results)
    yield "\n## Tests\n"
    yield ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items())) + "\n"
    for result in results:
        if result["outcome"] != "passed":
            reason = (result["why"].strip().splitlines() or [""])[-1]
            yield f"- {result['test'].removeprefix('tests/gpu/')}: {result['outcome']}, {reason}"


def full_size(results: list[Result]) -> Iterator[str]:
    """Speed and memory at the sizes of Tango and TangoFlux."""
    by_kind: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_kind[result["what"]].append(result)
    if not by_kind["peak"]:
        return
    peak = by_kind["peak"][0]["tflops"]
    yield f"\n## Networks of full size, random weights\n\nMeasured peak in bfloat16: {peak:.3g} TFLOP/s.\n"
    yield "| teacher | guidance | batch | compiled | s an update | over bare | share of the peak | GiB | GiB planned |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in by_kind["training"]:
        yield (
            f"| {row['model']} | {row['mode']} | {row['batch_size']} | {'yes' if row['compiled'] else 'no'}"
            f" | {row['seconds']:.3f} | {row['over_bare']:.3f} | {row['tflops'] / peak:.2f} | {row['peak_gib']:.1f}"
            f" | {row['planned_gib']:.1f} |"
        )
    yield ""
    for row in by_kind["sampling"]:
        yield (
            f"- Tango: sampling {row['batch_size']} clips, {row['num_steps']} guided steps: {row['ours']:.2f} s,"
            f" {row['ours'] / row['theirs']:.3f} of diffusers' own loop"
        )
    for row in by_kind["preparing"]:
        yield f"- Tango: preparing {row['clips_a_second']:.0f} clips a second"


def study(path: Path) -> Iterator[str]:
    """The means over training seeds and seeds of noise, by weighting and steps."""
    if not path.is_file():
        return
    values: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["model"] == "student":
                for name in ("trajectory_error", "fd_logmel", "obedience"):
                    if row.get(name):
                        values[int(row["num_steps"]), row["setting"]][name].append(float(row[name]))
    yield "\n## Weightings at convergence\n\n| steps | weighting | trajectory error | FD | obedience | rows |"
    yield "|---|---|---|---|---|---|"
    for (steps, setting), found in sorted(values.items(), key=lambda item: (-item[0][0], item[0][1])):
        cells = [f"{statistics.mean(found[name]):.4g}" for name in ("trajectory_error", "fd_logmel", "obedience")]
        yield f"| {steps} | {setting} | {' | '.join(cells)} | {len(found['fd_logmel'])} |"


def main() -> None:
    """Writes the page into the folder, and where else it is asked for."""
    parser = argparse.ArgumentParser(prog="table", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("page", type=Path, nargs="?", help="a second place for the page")
    parser.add_argument("--end", action="append", default=[], help="how a part has ended")
    arguments = parser.parse_args()
    text = "\n".join(page(arguments.folder, arguments.end)) + "\n"
    for path in (arguments.folder / "gpu.md", arguments.page):
        if path is not None:
            path.write_text(text)


if __name__ == "__main__":
    main()
