"""The curve of the training loss of runs, from ``metrics.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bsa_lightning.common.lists import read_csv
from bsa_lightning.reporting import drawing
from bsa_lightning.reporting.repeats import label
from bsa_lightning.reporting.snr import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOSS = "train/loss"
_MOST_POINTS = 400
"""The most points of a curve; longer ones are averaged over as many stretches, which a page does not make larger."""


@dataclass(frozen=True)
class Curve:
    """The training loss of a run.

    Args:
        run: the name of the run.
        steps: the number of updates of each point.
        losses: the training loss of each point, above 0.
    """

    run: str
    steps: tuple[float, ...]
    losses: tuple[float, ...]


def read_curves(runs: Sequence[Path]) -> list[Curve]:
    """Returns the curve of each run that has logged its training loss more than once."""
    found = []
    for run in runs:
        points = _points(run / "metrics.csv")
        if len(points) > 1:
            found.append(Curve(label([run]), *map(tuple, zip(*_thinned(points), strict=True))))
    return found


def legend(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """Returns (colour, name) of each run."""
    return [(drawing.colour(i), curve.run) for i, curve in enumerate(curves)]


def panel(curves: Sequence[Curve]) -> str:
    """Returns the panel as SVG for a page."""
    return drawing.inline(partial(_draw, curves=curves))


def _points(path: Path) -> list[tuple[float, float]]:
    if not path.exists():
        return []
    found = []
    for line, row in read_csv(path, ("step",), may_be_empty=True, may_be_cut=True):
        step, loss = (
            number(row.get(name) or "", f"{path} line {line} has {row.get(name)!r} as its {name}")
            for name in ("step", _LOSS)
        )
        if step is not None and loss is not None and loss > 0:
            found.append((step + 1, loss))
    return found


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the points, or their means over stretches of equal numbers of points."""
    length = -(-len(points) // _MOST_POINTS)
    stretches = [points[i : i + length] for i in range(0, len(points), length)]
    return [(sum(x for x, _ in each) / len(each), sum(y for _, y in each) / len(each)) for each in stretches]


def _draw(axes: Axes, curves: Sequence[Curve]) -> None:
    for i, curve in enumerate(curves):
        axes.plot(curve.steps, curve.losses, color=drawing.colour(i), label=curve.run, linewidth=1)
    drawing.log_y(axes)
    axes.set_title("Training loss", loc="left")
    axes.set_xlabel("updates")
