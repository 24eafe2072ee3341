"""The figure of a report (Liu et al., Fig. 2): each metric over sampling steps, one line a system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bsa_lightning.files import whole
from bsa_lightning.reporting.run_folder import REFERENCE, Result, metrics_of
from bsa_lightning.reporting.table import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey by marker.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def draw(results: Sequence[Result], paths: Sequence[Path]) -> None:
    """Writes the figure to each path, in the format of its suffix."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    metrics = metrics_of(results)
    with mpl.rc_context({"font.size": 10, "svg.hashsalt": "bsa-lightning", "axes.spines.top": False,
                         "axes.spines.right": False}):  # fmt: skip
        figure, panels = plt.subplots(1, len(metrics), figsize=(5.2 * len(metrics), 3.9), squeeze=False)
        for axes, metric in zip(panels[0], metrics, strict=True):
            _panel(axes, results, metric)
        panels[0][0].legend(frameon=False)
        figure.tight_layout()
        for path in paths:
            with whole(path) as partial:
                figure.savefig(partial, format=path.suffix[1:], dpi=160)
        plt.close(figure)


def _panel(axes: Axes, results: Sequence[Result], metric: str) -> None:
    shown = [r for r in results if metric in r.metrics and r.model != REFERENCE]
    lines: dict[str, list[Result]] = {}
    for result in shown:
        lines.setdefault(result.name, []).append(result)
    students = [name for name in lines if not name.startswith("Teacher")]
    for name, points in lines.items():
        means = [point.metrics[metric][0] for point in points]
        errors = [0.0 if math.isnan(point.metrics[metric][1]) else point.metrics[metric][1] for point in points]
        is_teacher = name not in students
        axes.errorbar(
            [point.num_steps for point in points],
            means,
            errors,
            label=name,
            color="#555555" if is_teacher else _COLOURS[students.index(name) % len(_COLOURS)],
            linestyle="--" if is_teacher else "-",
            marker="." if is_teacher else _MARKERS[students.index(name) % len(_MARKERS)],
            capsize=3,
        )
    steps = sorted({result.num_steps for result in shown})
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.set_xlabel("sampling steps")
    axes.set_ylabel(TITLES.get(metric, metric).replace("↓", "(lower is better)"))
    centres = [result.metrics[metric][0] for result in shown]
    if min(centres) > 0 and max(centres) > 10 * min(centres):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
