"""The figure of a report (Liu et al., Fig. 2): each metric over sampling steps, one line a system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING

from bsa_lightning.reporting import drawing
from bsa_lightning.reporting.run_folder import REFERENCE, Result, metrics_of
from bsa_lightning.reporting.table import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS_IN_A_ROW = 3
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLES = ("-", ":")
"""Of the first seven lines, and of the next, whose colours and markers come again."""


@dataclass(frozen=True)
class Line:
    """How a system is drawn, in every panel alike."""

    name: str
    colour: str
    style: str
    marker: str


def lines(results: Sequence[Result]) -> list[Line]:
    """One line a system: teachers grey and dashed, every other of its own colour and marker."""
    names = list(dict.fromkeys(result.name for result in results if result.model != REFERENCE))
    others = [name for name in names if not name.startswith("Teacher")]
    looks = dict(zip(others, cycle(product(_STYLES, range(len(_MARKERS)))), strict=False))
    return [
        Line(name, drawing.colour(looks[name][1]), looks[name][0], _MARKERS[looks[name][1]])
        if name in looks
        else Line(name, drawing.INK, "--", ".")
        for name in names
    ]


def draw(results: Sequence[Result], paths: Sequence[Path]) -> None:
    """Writes the figure to each path, in the format of its suffix: three panels a row, one legend above."""
    metrics = _metrics(results)
    columns = min(PANELS_IN_A_ROW, len(metrics))
    with drawing.figure(columns, math.ceil(len(metrics) / columns), paths) as grid:
        for axes, metric in zip(grid, metrics, strict=False):
            _panel(axes, results, metric)
        for axes in grid[len(metrics) :]:
            axes.set_visible(False)
        drawing.legend(grid)


def panels(results: Sequence[Result]) -> list[str]:
    """The panels one by one as SVG for a page, without a legend."""
    return [drawing.inline(partial(_panel, results=results, metric=metric)) for metric in _metrics(results)]


def _metrics(results: Sequence[Result]) -> list[str]:
    """All but the R^2 that goes with a distance at infinity, which belongs into the table."""
    return [name for name in metrics_of(results) if not name.endswith("_r2")]


def _panel(axes: Axes, results: Sequence[Result], metric: str) -> None:
    shown = [r for r in results if metric in r.metrics and r.model != REFERENCE]
    log = _spans_decades([r.metrics[metric][0] for r in shown])
    drawn = [r for r in shown if not log or r.metrics[metric][0] > 0]
    for line in lines(results):
        points = [result for result in drawn if result.name == line.name]
        if not points:
            continue
        axes.errorbar(
            [point.num_steps for point in points],
            [point.metrics[metric][0] for point in points],
            [0.0 if math.isnan(point.metrics[metric][1]) else point.metrics[metric][1] for point in points],
            label=line.name,
            color=line.colour,
            linestyle=line.style,
            marker=line.marker,
            capsize=3,
        )
    steps = sorted({result.num_steps for result in shown})
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.minorticks_off()
    axes.set_xlim(1.2 * steps[-1], steps[0] / 1.2)
    axes.set_xlabel("sampling steps (log axis)")
    title = TITLES.get(metric, metric).replace(" ↓", ", lower is better").replace(" ↑", ", higher is better")
    axes.set_title(title, loc="left")
    if log:
        drawing.log_y(axes, "log axis" + (", zeros left out" if len(drawn) < len(shown) else ""))
    else:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))


def _spans_decades(means: Sequence[float]) -> bool:
    """Whether a linear axis would squash the small ones; never where there are negative numbers."""
    positive = [mean for mean in means if mean > 0]
    return bool(positive) and min(means) >= 0 and max(positive) > 10 * min(positive)
