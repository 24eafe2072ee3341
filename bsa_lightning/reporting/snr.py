"""The second figure: where along the noise a student errs, and how that moves over training."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from bsa_lightning.reporting import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PREFIX = "val/error_snr"
_MAX_TICKS = 6
_NAMES = {"<0.1": "SNR below 0.1", "<1": "0.1 to 1", "<5": "1 to 5", ">5": "above 5"}


@dataclass(frozen=True)
class Validation:
    """The mean distillation error of each bin of SNR that had any time of the round's grid in it."""

    step: int
    num_steps: int
    errors: dict[str, float]


def read_validations(run: Path) -> list[Validation]:
    """The validations of ``metrics.csv`` with errors by SNR, in their order; none where the run logged none."""
    path = run / "metrics.csv"
    if not path.is_file():
        return []
    found, num_steps = [], 0
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            num_steps = int(float(row.get("val/num_steps") or row.get("num_steps") or num_steps))
            errors = {
                name.removeprefix(_PREFIX): float(text)
                for name, text in row.items()
                if name and name.startswith(_PREFIX) and text
            }
            if errors:
                found.append(Validation(int(row["step"]) + 1, num_steps, errors))
    return found


def draw(runs: Sequence[Path], paths: Sequence[Path]) -> bool:
    """Writes the figure, a row a run, to each path; whether there was anything to draw."""
    logged = {run: validations for run in runs if (validations := read_validations(run))}
    if logged:
        with drawing.figure(2, len(logged), paths) as grid:
            for i, (run, validations) in enumerate(logged.items()):
                title = f"{run.name}: " if len(runs) > 1 else ""
                _errors(grid[2 * i], validations, title)
                _shares(grid[2 * i + 1], validations, title)
            drawing.legend(grid[1::2])
    return bool(logged)


def panels(run: Path) -> list[str]:
    """Both panels of one run as SVG for a page; none where nothing was logged."""
    validations = read_validations(run)
    drawings = (_errors, _shares) if validations else ()
    return [drawing.inline(partial(one, validations=validations, title="")) for one in drawings]


def legend(run: Path) -> list[tuple[str, str]]:
    """(colour, name) of each bin that the panels of a run show."""
    return [(drawing.colour(_order(bin_)), _NAMES.get(bin_, bin_)) for bin_ in _bins(read_validations(run))]


def _bins(validations: Sequence[Validation]) -> list[str]:
    return sorted({bin_ for validation in validations for bin_ in validation.errors}, key=_order)


def _order(bin_: str) -> int:
    return list(_NAMES).index(bin_) if bin_ in _NAMES else len(_NAMES)


def _errors(axes: Axes, validations: Sequence[Validation], title: str) -> None:
    # A line a round: errors of two rounds have different targets.
    for bin_, num_steps in product(_bins(validations), sorted({v.num_steps for v in validations})):
        points = [v for v in validations if bin_ in v.errors and v.num_steps == num_steps]
        axes.plot(
            [point.step for point in points],
            [point.errors[bin_] for point in points],
            color=drawing.colour(_order(bin_)),
            label=_NAMES.get(bin_, bin_),
            marker="o",
            markersize=5,
        )
    drawing.log_y(axes)
    axes.set_title(f"{title}Distillation error by SNR", loc="left")
    _rounds(axes, validations)


def _shares(axes: Axes, validations: Sequence[Validation], title: str) -> None:
    steps = [validation.step for validation in validations]
    width = 0.8 * min((b - a for a, b in zip([0, *steps], steps, strict=False) if b > a), default=1)
    base = [0.0] * len(validations)
    for bin_ in _bins(validations):
        shares = [v.errors.get(bin_, 0.0) / (sum(v.errors.values()) or 1.0) for v in validations]
        axes.bar(steps, shares, width, bottom=base, color=drawing.colour(_order(bin_)), label=_NAMES.get(bin_, bin_))
        base = [a + b for a, b in zip(base, shares, strict=True)]
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_title(f"{title}Share of the bins' mean errors", loc="left")
    _rounds(axes, validations)


def _rounds(axes: Axes, validations: Sequence[Validation]) -> None:
    """Ticks at each round's first validation, with its steps; of a long ladder plain ticks, which do not collide."""
    axes.set_xlabel("updates (N: steps of the student)")
    firsts = {validation.num_steps: validation.step for validation in reversed(validations)}
    if len(firsts) <= _MAX_TICKS:
        axes.set_xticks(list(firsts.values()), [f"{step}\nN={num_steps}" for num_steps, step in firsts.items()])
