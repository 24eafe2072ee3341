"""``make gpu``: all that a GPU is needed for, the most valuable first, in at most eight minutes on one of 80 GB.

Each part has a limit of its own, and what it found is in the folder as soon as it is known. Needs torch, lightning,
transformers and this checkout; what else is missing is taken from the wheels that ``make gpu-wheels`` collects. On a
machine without a CUDA device the tests run on a simulated one (``tests/simulated_device.py``), the other parts in a
small form on the CPU, and all say what they could not do.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

WHEELS = Path(".wheels")
NEEDED = ("diffusers", "jsonargparse", "omegaconf", "peft", "soundfile", "typeshed_client", "docstring_parser")
"""Packages that machines with torch, lightning and transformers may lack."""
TABLE = Path("experiments/benchmarks/gpu.md")


class Part(NamedTuple):
    """A process with a limit.

    Args:
        name: the name of the part, of its log, and of its results.
        words: the words after the name of Python.
        seconds: the limit on a GPU; on a CPU, a part has no limit.
    """

    name: str
    words: tuple[str, ...]
    seconds: int


def parts(out: Path, *, has_gpu: bool) -> list[Part]:
    """The parts in their order. A compiled network of full size is the last of its part, for it takes minutes."""
    pytest = ["-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "-p", "experiments.gpu.record", "-p", "no:cacheprovider"]
    if has_gpu:
        pytest += [
            "tests/distillation/test_draws.py",
            "-p",
            "no:benchmark",
            "--numprocesses",
            str(max(1, (os.cpu_count() or 1) - 4)),
        ]
    else:  # on a simulated device, on which one ladder takes as long as twenty on the CPU
        pytest += ["-k", "not a_ladder_is_that_of_the_cpu or embedded"]
    return [
        Part("tests", tuple(pytest), 100),
        Part("full_size", ("-m", "experiments.gpu.full_size", str(out / "full_size.jsonl")), 230),
        Part(
            "study", ("-m", "experiments.gpu.study", str(out / "study"), "--seconds", "140" if has_gpu else "10"), 150
        ),
    ]


def run(part: Part, out: Path, *, environment: dict[str, str], has_gpu: bool) -> str:
    """Runs a part and returns how it ended."""
    began = time.monotonic()
    with (out / f"{part.name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *part.words], stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            code = process.wait(part.seconds if has_gpu else None)
            ended = "whole" if code == 0 else f"ended with {code}, see its log"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            ended = f"stopped at its limit of {part.seconds} s"
    return f"{part.name}: {ended}, {time.monotonic() - began:.0f} s"


def with_wheels(environment: dict[str, str]) -> dict[str, str]:
    """The environment in which the packages of the wheels are found, if any package is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    wheels = sorted(WHEELS.glob("*.whl"))
    if not missing:
        return environment
    if not wheels:
        raise SystemExit(f"{', '.join(missing)} are missing here; run `make gpu-wheels` where packages can be had")
    site = tempfile.mkdtemp()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--target", site]
    subprocess.run([*pip, *map(str, wheels)], check=True)
    return environment | {"PYTHONPATH": os.pathsep.join([site, environment.get("PYTHONPATH", "")])}


def main() -> None:
    """Runs the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", help="of tests, full_size, study; none: all")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="the folder of results and logs")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    environment = with_wheels(os.environ | {"GPU_TESTS": str(out / "tests.jsonl"), "PYTHONUNBUFFERED": "1"})
    environment.setdefault("OMP_NUM_THREADS", "1")
    asks = [sys.executable, "-c", "import torch, sys; sys.exit(not torch.cuda.is_available())"]
    has_gpu = subprocess.run(asks, env=environment, check=False).returncode == 0
    for file in out.glob("*.jsonl"):
        file.unlink()
    ends = []
    for part in parts(out, has_gpu=has_gpu):
        if not arguments.parts or part.name in arguments.parts:
            ends.append(run(part, out, environment=environment, has_gpu=has_gpu))
            print(ends[-1], flush=True)
            write = [sys.executable, "-m", "experiments.gpu.table", str(out)]
            subprocess.run([*write, *([str(TABLE)] if has_gpu else []), *(f"--end={end}" for end in ends)], check=True)
    if not has_gpu:
        print("no CUDA device: what is skipped by name in the tests, speed, memory and the study need one")
    print((out / "gpu.md").read_text(), end="")
    if any("ended with" in end for end in ends):
        sys.exit(1)


if __name__ == "__main__":
    main()
