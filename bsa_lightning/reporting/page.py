"""One self-contained page to look at and listen to: the same captions across systems, side by side."""

from __future__ import annotations

import base64
import html as escaping
from collections.abc import Sequence
from pathlib import Path

from bsa_lightning.reporting.run_folder import REFERENCE, Result, metrics_of
from bsa_lightning.reporting.table import TITLES, note

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
td, th { padding: .3rem .7rem; border-bottom: 1px solid #8884; text-align: left; vertical-align: top; }
audio { width: 14rem; height: 2rem; }
figure { margin: 1rem 0; background: #fff; }
figure svg { max-width: 100%; height: auto; }
"""


def html(runs: Sequence[Path], *, results: Sequence[Result], figure_svg: str) -> str:
    """The page as text; sounds and figure are inside it."""
    figure = figure_svg[figure_svg.index("<svg") :]
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escape(', '.join(run.name for run in runs))}</title><style>{_STYLE}</style>"
        f"<h1>{_escape(', '.join(run.name for run in runs))}</h1>"
        f'<div class="wide">{_scores(results)}</div><p>{_escape(note(results))}</p>'
        f"<figure>{figure}</figure><h2>Listen</h2>"
        + "".join(f'<div class="wide">{_sounds(run / "samples")}</div>' for run in runs)
        + "</html>\n"
    )


def _scores(results: Sequence[Result]) -> str:
    metrics = metrics_of(results)
    head = "".join(
        f"<th>{_escape(name)}</th>" for name in ("Model", "Steps", "NFE", *(TITLES.get(m, m) for m in metrics))
    )
    rows = "".join(
        f"<tr><td>{_escape(r.name)}</td><td>{r.num_steps}</td><td>{r.nfe}</td>"
        + "".join(f"<td>{_mean(r, metric)}</td>" for metric in metrics)
        + "</tr>"
        for r in results
        if r.model != REFERENCE
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _mean(result: Result, metric: str) -> str:
    if metric not in result.metrics:
        return ""
    mean, half_width = result.metrics[metric]
    return f"{mean:.3f}" + ("" if half_width != half_width else f" ± {half_width:.3f}")


def _sounds(samples: Path) -> str:
    """A row a system, a column a caption."""
    systems = sorted((folder for folder in samples.glob("*") if folder.is_dir()), key=_order)
    names = sorted({path.name for folder in systems for path in folder.glob("*.wav")})
    if not names:
        return "<p>This run kept no samples.</p>"
    head = "".join(f"<th>{_escape(Path(name).stem[3:].replace('-', ' '))}</th>" for name in names)
    rows = "".join(
        f"<tr><th>{_escape(folder.name)}</th>"
        + "".join(f"<td>{_player(folder / name)}</td>" for name in names)
        + "</tr>"
        for folder in systems
    )
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"


def _order(folder: Path) -> tuple[bool, bool, str, int]:
    """The reference, then the teacher, then students, many steps first."""
    system, _, steps = folder.name.rpartition("-")
    number = int(steps.removesuffix("steps")) if steps.endswith("steps") else 0
    return folder.name != REFERENCE, not system.startswith("teacher"), system, -number


def _player(path: Path) -> str:
    if not path.is_file():
        return ""
    sound = base64.b64encode(path.read_bytes()).decode()
    return f'<audio controls preload="none" src="data:audio/wav;base64,{sound}"></audio>'


def _escape(text: str) -> str:
    return escaping.escape(text)
