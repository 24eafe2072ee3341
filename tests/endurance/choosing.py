"""Which moments to die at: those that every run must survive, and any number of random ones."""

import math
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from endurance.moments import Moment

CLASSICS = (
    ("after", r"call .*promote", 0.0),
    ("after", r"return .*promote", 0.0),
    ("at", r"rename run/checkpoints/last\.ckpt", 0.0),
    ("bytes", r"open run/checkpoints/.*last\.ckpt.*", 3000.0),
    ("bytes", r"open run/rounds/.*safetensors", 1000.0),
    ("at", r"rename run/rounds/[^/]*", 0.0),
    ("at", r"call ScoreFile\.append", 0.0),
    ("at", r"rename run/scores\.csv", 0.0),
    ("bytes", r"open run/metrics\.csv", 7.0),
    ("after", r"call MetricsFile.log_metrics", 0.5),
    ("at", r"rename run/rows/.*", 0.0),
    ("at", r"rename run/samples/.*wav", 0.0),
    ("at", r"rename data/shard.*", 0.0),
    ("bytes", r"open data/.*shard.*", 500.0),
)
"""Kind, pattern of a label, and what is extra."""
CLEARING = (("at", r"rename run/\.checkpoints\.old.*", 0.0), *[("at", r"(remove|rmdir|rename) .*", 0.0)] * 6)
"""While ``--overwrite true`` removes an earlier run."""


class Census:
    """What an untouched run reached.

    Args:
        file: that each of its ranks wrote a census to.
        seconds: how long the run took.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self.seconds = seconds
        lines = [line.split("\t") for line in Path(f"{file}.0").read_text().splitlines()]
        self.counts = Counter(label for _, label in lines)
        self.met = next((label for _, label in lines if label.startswith("call ")), "")
        """Reached when all ranks have met: one that dies before leaves the others waiting for as long as torch does."""

    def matching(self, pattern: str) -> list[str]:
        return sorted(label for label in self.counts if re.fullmatch(pattern, label))


def classics(census: Census, chance: random.Random, wanted: Iterable[tuple[str, str, float]]) -> list[Moment]:
    """One death at each of the wanted moments that the job has."""
    found = []
    for kind, pattern, extra in wanted:
        if labels := census.matching(pattern):
            label = chance.choice(labels)
            found.append(Moment(kind, label, chance.randint(1, census.counts[label]), extra))
    return found


def anywhere(census: Census, chance: random.Random) -> Moment:
    """A random moment: by the clock, at or after something reached, or in the midst of writing a file."""
    kind = chance.choices(("clock", "at", "after", "bytes"), (3, 3, 2, 2))[0]
    if kind == "clock":
        return Moment("clock", extra=round(chance.uniform(0, census.seconds), 3))
    label = chance.choice(census.matching(r"open .*" if kind == "bytes" else r".*"))
    nth = chance.randint(1, census.counts[label])
    extra = {"at": 0.0, "after": chance.uniform(0, 20), "bytes": math.exp(chance.uniform(0, 9))}[kind]
    return Moment(kind, label, nth, round(extra, 2) if kind == "after" else int(extra))


def plan(census: Census, kills: int, chance: random.Random, *, ranks: int, clears: bool) -> list[list[Moment]]:
    """At least so many deaths: two thirds at classic moments, the others anywhere, some of them several in a row."""
    wanted = CLEARING if clears else CLASSICS
    known = classics(census, chance, wanted)
    found = [[moment] for moment in chance.sample(known, min(len(known), math.ceil(2 * kills / 3)))]
    while (left := kills - sum(map(len, found))) > 0:
        several = min(left, chance.choice((1, 1, 1, 2, 4)))
        found.append([anywhere(census, chance) for _ in range(several)])
    if ranks > 1:  # one of the ranks alone, in a quarter of them
        for moments in found[::4]:
            if moments[0].kind == "clock":  # too early on a slow day
                moments[0] = Moment("after", census.met, 1, round(chance.uniform(0, 500), 2), chance.randrange(ranks))
            moments[0] = replace(moments[0], alone=True)
    return [[Moment("end")], *found]


def short(census: Census, chance: random.Random, *, ranks: int) -> list[list[Moment]]:
    """A handful of deaths, several in a row on each run, so that they cost little more than two runs do."""
    clock = Moment("clock", extra=round(chance.uniform(0.2, 0.4) * census.seconds, 3))
    if ranks > 1:
        alone = Moment("at", "return ProgressiveDistillation.optimizer_step", 2, rank=1, alone=True)
        return [[Moment("after", "return ProgressiveDistillation.promote", 1), alone]]
    in_shard, in_checkpoint, in_student = (
        chance.choice(census.matching(pattern))
        for pattern in (r"open data/.*shard.*", r"open run/checkpoints/.*ckpt.*", r"open run/rounds/.1-.*safetensors")
    )
    return [
        [
            Moment("bytes", in_checkpoint, 2, chance.randint(1, 9999)),
            Moment("after", "call ProgressiveDistillation.promote", 1, round(chance.uniform(0, 5), 2)),
            Moment("at", "rename run/scores.csv", 1),
            clock,
        ],
        [
            Moment("bytes", in_shard, 1, chance.randint(1, 99)),
            Moment("bytes", in_student, 1, chance.randint(1, 9999)),
            Moment("at", "call ScoreFile.append", 2),
            Moment("at", "rename run/checkpoints/last.ckpt", 2),
        ],
    ]
