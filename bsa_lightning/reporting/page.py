"""The page of a report, in one self-contained file: scores, sounds of the same captions by all systems, run details."""

from __future__ import annotations

import html as escaping
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from bsa_lightning.reporting import clip_differences as differences
from bsa_lightning.reporting import figure, listening, loss_curve, snr, table, training_seed_differences
from bsa_lightning.reporting.repeats import label
from bsa_lightning.reporting.results import Result
from bsa_lightning.reporting.run_details import Details, read_details
from bsa_lightning.reporting.samples import read_samples
from bsa_lightning.reporting.training_seed_differences import TrainingSeedDifference

_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", ".": "┅", "x": "✕", "+": "+"}
_MOST_NAMES = 8
"""The most runs that the title of a page names."""
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The policy with which browsers keep the page from loading anything from elsewhere."""


def html(
    runs: Sequence[Path],
    results: Sequence[Result],
    trained: Sequence[TrainingSeedDifference] = (),
    *,
    scored: Sequence[Path] = (),
) -> str:
    """Returns the page as HTML, which contains all sounds, pictures, styles and scripts.

    Args:
        runs: the folders of the runs to show.
        results: all systems of all runs.
        trained: the differences between systems over training seeds.
        scored: all runs that the results are from, for the title; ``runs`` if empty.
    """
    captions, systems = read_samples(runs, results)
    title = escape(_title(scored or runs))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}: scores and sounds</title>
<style>{_asset("page.css")}</style>
</head>
<body data-report="{title}">
<header>
<h1>{title}</h1>
<nav aria-label="Sections"><a href="#scores">Scores</a><a href="#listen">Listen</a><a href="#runs">Run details</a></nav>
<fieldset class="switch" id="theme"><legend>Theme</legend>{_themes()}</fieldset>
</header>
<main>
<section id="scores" aria-labelledby="scores-title"><h2 id="scores-title">Scores</h2>
{_scores(results)}
<p class="note">{escape(table.note(results))}</p>
{_trained(trained)}
{"".join(_differences(run, named=len(runs) > 1) for run in runs)}
<div class="figures">{_figure(results)}{_loss(runs)}{"".join(_snr(run, named=len(runs) > 1) for run in runs)}</div>
</section>
{listening.section(captions, systems)}
<section id="runs" aria-labelledby="runs-title"><h2 id="runs-title">Run details</h2>
{"".join(_details(read_details(run)) for run in runs)}
</section>
</main>
<script>{_asset("player.js")}{_asset("blind.js")}</script>
</body>
</html>
"""


def _title(runs: Sequence[Path]) -> str:
    """Returns the names of all runs, or those of the first and the number of the others."""
    names = [label([run]) for run in runs]
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def is_ours(path: Path) -> bool:
    """Returns whether a file is a page of :func:`html`."""
    with suppress(OSError):
        return path.is_file() and b"<body data-report=" in path.read_bytes()
    return False


def escape(text: str) -> str:
    """Returns text with the special characters of HTML escaped, quotes included."""
    return escaping.escape(text)


def _asset(name: str) -> str:
    return files("bsa_lightning.reporting").joinpath("assets", name).read_text(encoding="utf-8")


def _themes() -> str:
    return "".join(
        f'<label><input type="radio" name="theme" value="{name}"{" checked" if name == "auto" else ""}>'
        f"<span>{name.capitalize()}</span></label>"
        for name in ("auto", "light", "dark")
    )


def _scores(results: Sequence[Result]) -> str:
    header, rows = table.cells(results)
    return _table("Score table", header, rows, words=("Model", "Guidance"))


def _trained(found: Sequence[TrainingSeedDifference]) -> str:
    rows, header = training_seed_differences.cells(found), training_seed_differences.HEADER
    return _folded("Differences over training seeds", training_seed_differences.NOTE, header, rows, words=header[:4])


def _differences(run: Path, *, named: bool) -> str:
    title = "Paired differences" + (f", {label([run])}" if named else "")
    rows, header = differences.read_differences(run), differences.HEADER
    return _folded(title, differences.NOTE, header, rows, words=header[:3])


def _folded(
    title: str, note: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[str]
) -> str:
    if not rows:
        return ""
    return (
        f'<details aria-label="{escape(title)}"><summary>{escape(title)}</summary>'
        f'<p class="note">{escape(note)}</p>{_table(title, header, rows, words=words)}</details>'
    )


def _table(label: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[str]) -> str:
    """Returns a table in a box that scrolls; all columns except ``words`` are aligned as numbers."""
    numeric = ["" if name in words else ' class="number"' for name in header]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(header, numeric, strict=True))
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row[1:], numeric[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        '<p class="hint" hidden>The table goes on to the right: scroll or swipe it sideways →</p>'
        f'<div class="wide" role="region" aria-label="{escape(label)}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _figure(results: Sequence[Result]) -> str:
    legend = [(line.colour, _MARKERS[line.marker], line.name) for line in figure.lines(results)]
    caption = "Each metric over network evaluations of a clip; bars are the 95 % intervals of the table."
    return _panels(caption, legend, figure.panels(results))


def _loss(runs: Sequence[Path]) -> str:
    curves = loss_curve.read_curves(runs)
    if not curves:
        return ""
    caption = "The training loss; each round has a target of its own, so that it rises where a round begins."
    legend = [(colour, "■", name) for colour, name in loss_curve.legend(curves)] if len(curves) > 1 else []
    return _panels(caption, legend, [loss_curve.panel(curves)])


def _snr(run: Path, *, named: bool) -> str:
    panels = snr.panels(run)
    if not panels:
        return ""
    title = f"Where along the noise the student errs{f' ({label([run])})' if named else ''}, at each validation."
    return _panels(title, [(colour, "■", name) for colour, name in snr.legend(run)], panels)


def _panels(caption: str, legend: Sequence[tuple[str, str, str]], panels: Sequence[str]) -> str:
    entries = "".join(
        f'<li><span style="color:{"currentColor" if colour == figure.drawing.INK else colour}" aria-hidden="true">'
        f"{marker}</span> {escape(name)}</li>"
        for colour, marker, name in legend
    )
    drawings = "".join(f'<div role="img" aria-label="{escape(caption)}">{svg}</div>' for svg in panels)
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<ul class="legend">{entries}</ul><div class="panels">{drawings}</div></figure>'
    )


def _details(details: Details) -> str:
    groups = "".join(
        f"<div><h4>{escape(title)}</h4><dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
        + "</dl></div>"
        for title, pairs in details.groups.items()
    )
    config = (
        f'<details aria-label="Configuration of {escape(details.run)}"><summary>The whole config.yaml</summary>'
        f'<pre tabindex="0">{escape(details.config)}</pre></details>'
        if details.config
        else ""
    )
    return f'<h3>{escape(details.run)}</h3><div class="details">{groups}</div>{config}'
