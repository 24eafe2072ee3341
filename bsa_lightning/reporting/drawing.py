"""The common parts of the figures of a report: colours, sizes, files, and SVG that adopts the colours of a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsa_lightning.common.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#3c4043"
"""The colour of teachers' lines, axes and text."""
PALE = "#80868b"
"""The colour of the lines of teachers without guidance, which is visible on light and on dark backgrounds."""
# Okabe and Ito's palette, which colour-blind readers can distinguish; in grey, markers distinguish lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "bsa-lightning",
    "text.parse_math": False,  # a run may have dollar signs in its name
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def colour(number: int) -> str:
    """Returns the colour of the system of this number, from 0; colours repeat after seven."""
    return _COLOURS[number % len(_COLOURS)]


@contextmanager
def figure(columns: int, rows: int, paths: Sequence[Path]) -> Iterator[list[Axes]]:
    """Yields axes to draw on, row by row, and then writes the figure to each path, in the format of its suffix.

    Args:
        columns: the number of panels in a row.
        rows: the number of rows.
        paths: the paths of the files.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context(_STYLE):
        canvas, axes = plt.subplots(
            rows, columns, figsize=(4.4 * columns, 3.4 * rows + 0.4), squeeze=False, layout="constrained"
        )
        try:
            yield list(axes.flat)
            for path in paths:
                with atomic_write(path) as partial:
                    metadata = {"Date": None} if path.suffix == ".svg" else None
                    canvas.savefig(partial, format=path.suffix[1:], dpi=160, metadata=metadata)
        finally:
            plt.close(canvas)


def log_y(axes: Axes, label: str = "log axis") -> None:
    """Makes the y axis logarithmic, with ticks at 1, 2 and 5 times powers of ten, written without exponents."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(label)


def legend(panels: Sequence[Axes]) -> None:
    """Adds one legend above all panels."""
    found = [axes.get_legend_handles_labels() for axes in panels]
    handles = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
    canvas = panels[0].get_figure()
    if canvas is not None and handles:
        canvas.legend(
            list(handles.values()), list(handles), loc="outside upper left", ncols=min(4, len(handles)), frameon=False
        )


def inline(draw: Callable[[Axes], None]) -> str:
    """Returns one panel as an ``<svg>`` element that adopts the text colour, background and font of the page.

    Args:
        draw: draws the panel on the given axes.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({**_STYLE, "svg.fonttype": "none"}):
        canvas, axes = plt.subplots(figsize=(3.7, 2.8), layout="constrained")
        draw(axes)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        plt.close(canvas)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<(metadata|style).*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"|(<svg [^>]*?)height="[^"]*" ', r"\1\2", text, count=1)
    return re.sub(r"font-family: [^;\"]*;? ?", "", text)
