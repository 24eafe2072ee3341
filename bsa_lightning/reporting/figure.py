"""The figure of a report (after Liu et al., Figure 2): each metric over network evaluations, a line for each system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING

from bsa_lightning.reporting import drawing
from bsa_lightning.reporting.metric_titles import title_of
from bsa_lightning.reporting.results import REFERENCE, Result, metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS_IN_A_ROW = 3
_MARGIN = 0.05
"""The share of a panel above its highest point, so that no marker is cut."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLES = ("-", ":")
"""The line styles of the first seven systems, and of the next seven, whose colours and markers are the same."""
_OF_SAMPLERS = (("--", "."), ("-.", "x"), (":", "+"))
"""Line style and marker of the first sampler of a teacher, of its second, and so on."""


@dataclass(frozen=True)
class Line:
    """The looks of a system, which are the same in every panel."""

    name: str
    colour: str
    style: str
    marker: str


def lines(results: Sequence[Result]) -> list[Line]:
    """Returns a line for each system: students in colours with markers of their own, teachers in grey and dashed.

    The line style and marker of a teacher are those of its sampler; a teacher without guidance is paler.
    """
    shown = {result.name: result for result in results if result.model != REFERENCE}
    others = [name for name, result in shown.items() if result.model != "teacher"]
    looks = dict(zip(others, cycle(product(_STYLES, range(len(_MARKERS)))), strict=False))
    samplers = list(dict.fromkeys(result.sampler for result in shown.values() if result.model == "teacher"))
    return [
        Line(name, drawing.colour(looks[name][1]), looks[name][0], _MARKERS[looks[name][1]])
        if name in looks
        else Line(
            name,
            drawing.PALE if result.system.unguided else drawing.INK,
            *_OF_SAMPLERS[samplers.index(result.sampler) % len(_OF_SAMPLERS)],
        )
        for name, result in shown.items()
    ]


def draw(results: Sequence[Result], paths: Sequence[Path]) -> None:
    """Writes the figure to each path, in the format of its suffix, with three panels in a row and one legend."""
    metrics = _metrics(results)
    columns = min(PANELS_IN_A_ROW, len(metrics))
    with drawing.figure(columns, math.ceil(len(metrics) / columns), paths) as grid:
        for axes, metric in zip(grid, metrics, strict=False):
            _panel(axes, results, metric)
        for axes in grid[len(metrics) :]:
            axes.set_visible(False)
        drawing.legend(grid)


def panels(results: Sequence[Result]) -> list[str]:
    """Returns each panel as SVG for a page, without a legend."""
    return [drawing.inline(partial(_panel, results=results, metric=metric)) for metric in _metrics(results)]


def _metrics(results: Sequence[Result]) -> list[str]:
    """Returns all metrics of systems except the R^2 of distances at infinity, which is in the table only."""
    systems = [result for result in results if result.model != REFERENCE]
    return [name for name in metrics_of(systems) if not name.endswith("_r2")]


def _panel(axes: Axes, results: Sequence[Result], metric: str) -> None:
    shown = [r for r in results if metric in r.metrics and r.model != REFERENCE]
    log = _spans_decades([r.metrics[metric][0] for r in shown])
    drawn = [r for r in shown if not log or r.metrics[metric][0] > 0]
    for line in lines(results):
        points = [result for result in drawn if result.name == line.name]
        if not points:
            continue
        axes.errorbar(
            [point.nfe for point in points],
            [point.metrics[metric][0] for point in points],
            [0.0 if math.isnan(point.metrics[metric][1]) else point.metrics[metric][1] for point in points],
            label=line.name,
            color=line.colour,
            linestyle=line.style,
            marker=line.marker,
            capsize=3,
        )
    evaluations = sorted({result.nfe for result in shown})
    axes.set_xscale("log", base=2)
    axes.set_xticks(evaluations, [str(nfe) for nfe in evaluations])
    axes.minorticks_off()
    axes.set_xlim(1.2 * evaluations[-1], evaluations[0] / 1.2)
    axes.set_xlabel("network evaluations a clip (log axis)")
    title = title_of(metric).replace(" ↓", ", lower is better").replace(" ↑", ", higher is better")
    axes.set_title(title, loc="left")
    if log:
        drawing.log_y(axes, "log axis" + (", zeros left out" if len(drawn) < len(shown) else ""))
    else:
        low, high = min(0, axes.get_ylim()[0]), axes.dataLim.y1
        axes.set_ylim(low, high + _MARGIN * (high - low))


def _spans_decades(means: Sequence[float]) -> bool:
    """Returns whether positive values differ by a factor above 10, so that a logarithmic axis shows them better."""
    positive = [mean for mean in means if mean > 0]
    return bool(positive) and min(means) >= 0 and max(positive) > 10 * min(positive)
