"""The comparison of weightings with as many updates a round as the minutes on a GPU allow, all runs at once.

Teacher, rounds, data, embeddings and rates are those of ``experiments/weightings``; only the number of updates differs.
It is chosen from the speed of a first, short round of all runs together.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from experiments.study.gather import write_scores
from experiments.study.run import RATES, Run, validated
from experiments.study.study import Study
from experiments.weightings.grid import weighting_options

CUDA = torch.cuda.is_available()
NAMES = ("bsa", "min-snr", "truncated-snr", "snr+1") if CUDA else ("bsa",)
"""BSA, min-SNR, truncated SNR, and the plain error in v, whose weight in x is SNR + 1."""
SEEDS = range(3 if CUDA else 1)
SMALL = () if CUDA else ("--model.plan.start_steps", "2", "--scoring.num_captions", "20", "--scoring.seeds", "[0]")
TUNED = Path("experiments/weightings/results/rates.csv")
TRIAL = 20 if CUDA else 2
"""Updates a round of the runs that measure the speed."""
FOR_UPDATES = 0.6
"""The share of the time that training gets; the rest is for scoring."""


def rate_of(name: str) -> str:
    """The learning rate that the study tuned for a weighting."""
    with TUNED.open(newline="") as file:
        found = {row["setting"]: float(row["geometric_mean"]) for row in csv.DictReader(file)}
    return min(RATES, key=lambda rate: found[f"{name}-{rate}"])


def runs(part: str, updates: int, *, scored: bool) -> list[Run]:
    """Every weighting with every training seed, the seeds one after the other, so that what is done can be compared."""
    words = ("--model.plan.updates", str(updates), *validated(updates))
    return [
        Run(
            part,
            name,
            seed,
            (*weighting_options(name), *words, *SMALL, "--model.optimizer.init_args.lr", rate_of(name)),
            scored=scored,
        )
        for seed in SEEDS
        for name in NAMES
    ]


def main() -> None:
    """Trains, scores, and writes the scores of all that is done into the folder."""
    parser = argparse.ArgumentParser(prog="study", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder of runs and scores")
    parser.add_argument("--seconds", type=float, default=180, help="for everything")
    arguments = parser.parse_args()
    began, out = time.monotonic(), arguments.out
    study = Study(jobs=min(os.cpu_count() or 1, len(NAMES) * len(SEEDS)), root=out)
    study.run(runs("data", 1, scored=False)[0])  # which prepares the data
    trained = time.monotonic()
    with ThreadPoolExecutor(study.jobs) as pool:
        list(pool.map(study.run, runs("trial", TRIAL, scored=False)))
    speed = TRIAL * Run.num_rounds / (time.monotonic() - trained)
    left = arguments.seconds - (time.monotonic() - began)
    updates = max(TRIAL, int(speed * left * FOR_UPDATES / Run.num_rounds))
    print(f"{updates} updates a round", flush=True)
    todo, done = runs("study", updates, scored=True), list[Run]()
    with ThreadPoolExecutor(study.jobs) as pool:
        for run, _ in zip(todo, pool.map(study.run, todo), strict=True):
            done.append(run)
            write_scores(done, out, out / "scores.csv")
    study.lightning(["report", *(str(run.folder(out)) for run in done), "--out", str(out / "report")], out / "log")


if __name__ == "__main__":
    main()
