"""A run of a study, as data, and what the runs of all studies have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEMO, STUDY = "configs/demo.yaml", "experiments/study/study.yaml"
RATES = ("1e-5", "3e-5", "1e-4")
UPDATES = 240
"""A round, as in ``study.yaml``."""
TUNING_SEED = 100
"""Held out: learning rates are chosen on it, and nothing else is."""


@dataclass(frozen=True)
class Run:
    """One run folder: ``root/part/setting/seed``.

    Args:
        part: of the study, which has a table of its own.
        setting: what its runs have in common.
        seed: of training.
        options: of the command line, beyond the two configurations.
        weighting: whose tuned rate it takes; none takes what its options say.
        scored: whether ``lightning test`` is run too.
        rates: the part whose runs tune it, one of ``TUNING``.
        num_rounds: how many rounds it has.
    """

    part: str
    setting: str
    seed: int
    options: tuple[str, ...] = ()
    weighting: str | None = None
    scored: bool = True
    rates: str = "rates"
    num_rounds: int = 4

    def folder(self, root: Path) -> Path:
        return root / self.part / self.setting / str(self.seed)


def validated(every: int) -> tuple[str, ...]:
    """At the end of each round, where rounds have another length."""
    return ("--trainer.val_check_interval", str(every))
