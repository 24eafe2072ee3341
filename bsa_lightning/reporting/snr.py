"""The figure of errors by SNR: at which noise levels a student errs, and how this changes during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.lists import read_csv
from bsa_lightning.evaluation.scores import finite
from bsa_lightning.reporting import drawing
from bsa_lightning.reporting.repeats import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHARES = {"loss": "Share of the loss", "gradient": "Share of the gradient"}
_MAX_TICKS = 6
_NAMES = {"<0.1": "SNR below 0.1", "<1": "0.1 to 1", "<5": "1 to 5", ">5": "above 5"}


@dataclass(frozen=True)
class Validation:
    """The errors of one validation by bin of the SNR.

    Args:
        step: the number of updates.
        num_steps: the number of steps of the round's student.
        errors: the mean distillation error of each bin that holds a time of the round's grid.
        parts: the contribution of each bin, by kind: "loss" or "gradient".
    """

    step: int
    num_steps: int
    errors: dict[str, float]
    parts: dict[str, dict[str, float]]


def read_validations(run: Path) -> list[Validation]:
    """Returns the validations in ``metrics.csv`` that have errors by SNR, in their order."""
    path = run / "metrics.csv"
    if not path.exists():
        return []
    found, num_steps = [], 0
    for line, row in read_csv(path, ("step",), may_be_empty=True, may_be_cut=True):
        numbers = {
            name: number(value, f"{path} line {line} has {value!r} as its {name}") for name, value in row.items()
        }
        num_steps = int(numbers.get("val/num_steps") or numbers.get("num_steps") or num_steps)
        kinds = {
            kind: {bin_: value for bin_ in _NAMES if (value := numbers.get(f"val/{kind}_snr{bin_}")) is not None}
            for kind in ("error", *_SHARES)
        }
        if errors := kinds.pop("error"):
            parts = {kind: part for kind, part in kinds.items() if part}
            found.append(Validation(int(numbers["step"] or 0) + 1, num_steps, errors, parts))
    return found


def number(text: str, said: str) -> float | None:
    """Returns the number in a cell, or ``None`` if the cell is empty or its number is not finite.

    Raises:
        UserError: if the text is not a number.
    """
    if text.lower() in ("", "nan", "inf", "-inf"):
        return None
    if (value := finite(text)) is None:
        raise UserError(f"{said}, which is not a number; correct it, or remove the file")
    return value


def draw(runs: Sequence[Path], paths: Sequence[Path]) -> bool:
    """Writes the figure, with a row for each run, to each path, and returns whether there was anything to draw."""
    logged = {run: validations for run in runs if (validations := read_validations(run))}
    if logged:
        width = 1 + max(len(_kinds(validations)) for validations in logged.values())
        with drawing.figure(width, len(logged), paths) as grid:
            for i, (run, validations) in enumerate(logged.items()):
                title = f"{label([run])}: " if len(runs) > 1 else ""
                _errors(grid[width * i], validations, title)
                for k, kind in enumerate(_kinds(validations), start=1):
                    _shares(grid[width * i + k], validations, title, kind)
            drawing.legend(grid)
    return bool(logged)


def panels(run: Path) -> list[str]:
    """Returns the panels of one run as SVG for a page; empty if it has logged no errors by SNR."""
    validations = read_validations(run)
    drawings = [partial(_errors, validations=validations, title="")] if validations else []
    drawings += [partial(_shares, validations=validations, title="", kind=kind) for kind in _kinds(validations)]
    return [drawing.inline(one) for one in drawings]


def legend(run: Path) -> list[tuple[str, str]]:
    """Returns (colour, name) of each bin in the panels of a run."""
    return [(drawing.colour(_order(bin_)), _NAMES.get(bin_, bin_)) for bin_ in _bins(read_validations(run))]


def _bins(validations: Sequence[Validation]) -> list[str]:
    return sorted({bin_ for validation in validations for bin_ in validation.errors}, key=_order)


def _order(bin_: str) -> int:
    return list(_NAMES).index(bin_) if bin_ in _NAMES else len(_NAMES)


def _errors(axes: Axes, validations: Sequence[Validation], title: str) -> None:
    # Each round has a line of its own, since errors of different rounds have different targets.
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


def _kinds(validations: Sequence[Validation]) -> list[str]:
    return [kind for kind in _SHARES if any(kind in validation.parts for validation in validations)]


def _shares(axes: Axes, validations: Sequence[Validation], title: str, kind: str) -> None:
    steps = [validation.step for validation in validations]
    width = 0.8 * min((b - a for a, b in zip([0, *steps], steps, strict=False) if b > a), default=1)
    base = [0.0] * len(validations)
    for bin_ in _bins(validations):
        parts = [validation.parts.get(kind, {}) for validation in validations]
        shares = [part.get(bin_, 0.0) / (sum(part.values()) or 1.0) for part in parts]
        axes.bar(steps, shares, width, bottom=base, color=drawing.colour(_order(bin_)), label=_NAMES.get(bin_, bin_))
        base = [a + b for a, b in zip(base, shares, strict=True)]
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_title(f"{title}{_SHARES[kind]}", loc="left")
    _rounds(axes, validations)


def _rounds(axes: Axes, validations: Sequence[Validation]) -> None:
    """Sets ticks at the first validation of each round, with its number of steps; plain ticks if the ladder is long."""
    axes.set_xlabel("updates (N: steps of the student)")
    firsts = {validation.num_steps: validation.step for validation in reversed(validations)}
    if len(firsts) <= _MAX_TICKS:
        axes.set_xticks(list(firsts.values()), [f"{step}\nN={num_steps}" for num_steps, step in firsts.items()])
