"""The table of a report, in the layout of Liu et al., Table 1."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

from bsa_lightning.evaluation.system_name import is_unguided
from bsa_lightning.reporting import best_rivals
from bsa_lightning.reporting.metric_titles import title_of
from bsa_lightning.reporting.results import REFERENCE, Result, metrics_of

WHEN_WORSE = "docs/when-the-student-is-worse.md"
"""The page of the documentation on students that are worse than their teacher."""
MARK = "†"
"""The mark of rows that were scored with fewer sampling seeds than others."""
TRAINED_ONCE = "‡"
"""The mark of students that were trained once, in a table with students that were trained several times."""


def cells(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of the table as text, with numbers as mean ± half width of the interval."""
    metrics = metrics_of(results)
    scored = [result for result in results if result.model != REFERENCE]
    timed = any(result.seconds for result in scored)
    most = max(len(result.seeds) for result in scored)
    header = ["Model", "Steps", "NFE", *(["Seconds a clip"] if timed else []), "Guidance"]
    once = _trained_once(scored)
    rows = []
    for result in scored:
        marks = [MARK] * (len(result.seeds) < most) + [TRAINED_ONCE] * (result in once)
        row = [" ".join([result.name, *marks]), str(result.num_steps), str(result.nfe)]
        if timed:
            row.append(_seconds(result.seconds))
        unguided = is_unguided(result.guidance, result.guidance_scale)
        row.append("none" if unguided else f"{result.guidance} {result.guidance_scale:g}")
        rows.append(row + [_number(result.metrics.get(name)) for name in metrics])
    return header + [title_of(name) for name in metrics], rows


def markdown(results: Sequence[Result]) -> str:
    """Returns the table and its note as Markdown."""
    return aligned(*cells(results)) + "\n" + note(results) + "\n"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns are aligned in plain text, too."""
    header, *rows = ([cell.replace("|", "\\|") for cell in line] for line in [header, *rows])
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in [header, rule, *rows]
    )


def note(results: Sequence[Result]) -> str:
    """Returns the note on the table: numbers of captions and seeds, the kind of intervals, and the best rivals."""
    scored = [result for result in results if result.model != REFERENCE]
    seeds = sorted({len(result.seeds) for result in scored})
    text = f"{scored[0].num_clips} captions, {seeds[-1]} sampling seed{'s' if seeds[-1] > 1 else ''}"
    text += "; ± is the 95 % interval of the mean (Student's t)." if seeds[-1] > 1 else "."
    if trained := sorted({len(result.training_seeds) for result in scored if result.training_seeds}):
        count = str(trained[0]) if len(trained) == 1 else f"{trained[0]} to {trained[-1]}"
        text += f" Of students that were trained with {count} seeds ± is the 95 % interval"
        text += " over training and sampling seeds together" if seeds[-1] > 1 else " over training seeds (Student's t)"
        text += ", of teachers, which are not trained, over sampling seeds." if seeds[-1] > 1 else "."
    if _trained_once(scored):
        text += (
            f" {TRAINED_ONCE} trained once: ± is over sampling seeds alone, and leaves out what training again changes."
        )
    if len(seeds) > 1:
        text += f" {MARK} scored on fewer seeds than the others ({seeds[0]} of {seeds[-1]})"
        if any(result.training_seeds and len(result.seeds) == 1 for result in scored):
            text += ", where ± of one sampling seed is over training seeds alone"
        text += "; run lightning test to score the rest."
    text += _best_rivals(results) + _worse_than_teacher(results)
    for result in results:
        if result.model == REFERENCE:
            halves = ", ".join(f"{title_of(name)} {mean:.3g}" for name, (mean, _) in result.metrics.items())
            text += f" Two halves of the {result.num_clips} reference clips, of different captions: {halves}."
    return text


def _best_rivals(results: Sequence[Result]) -> str:
    """Returns a sentence on the best rivals for each number of network evaluations, by the main metric."""
    metric = metrics_of(results)[0]
    title = title_of(metric)
    found: dict[int, dict[str, dict[str, list[str]]]] = {}
    for student, rival, verdict in best_rivals.matches(results, metric, higher_is_better=title.endswith("↑")):
        more = f" and {rival.nfe} evaluations" if rival.nfe > student.nfe else ""
        who = f"{rival.name}, {_count(rival.num_steps, 'step')}{more}, {_number(rival.metrics[metric])}"
        found.setdefault(student.nfe, {}).setdefault(who, {}).setdefault(verdict, []).append(student.name)
    told = [
        f"at {_count(nfe, 'evaluation')} " + ", and ".join(f"{who} ({_verdicts(by)})" for who, by in best.items())
        for nfe, best in found.items()
    ]
    if not told:
        return ""
    return (
        f" The best undistilled rivals by {title}, and which students are better or worse with intervals apart:"
        f" {'; '.join(told)}."
    )


def _worse_than_teacher(results: Sequence[Result]) -> str:
    """Returns a sentence on the students that are worse than their teacher in as many steps; empty if none is."""
    found = [
        f"{student.name}, {_count(student.num_steps, 'step')} ({', '.join(map(title_of, metrics))})"
        for student, metrics in best_rivals.worse_than_teacher(results)
    ]
    if not found:
        return ""
    return (
        " Worse than the undistilled teacher in as many steps of DDIM, with intervals apart:"
        f" {'; '.join(found)}. {WHEN_WORSE}, in the documentation, says what to check."
    )


def _verdicts(students: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in students.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _trained_once(scored: Sequence[Result]) -> list[Result]:
    """Returns the students that were trained once, if others were trained several times: their intervals differ."""
    several = any(result.training_seeds for result in scored)
    return [result for result in scored if several and result.weighting and not result.training_seeds]


def comma_separated(results: Sequence[Result]) -> str:
    """Returns the table as CSV, with unrounded numbers, and a column for each mean and each half width."""
    metrics = metrics_of(results)
    measured = ["seconds_per_clip", *metrics] if any(r.seconds for r in results) else metrics
    columns = [column for name in measured for column in (name, f"{name}_ci95")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    system = ["model", "method", "weighting", "sampler", "num_steps", "nfe", "guidance", "guidance_scale", "num_clips"]
    writer.writerow([*system, "num_seeds", *columns])
    for r in results:
        known = {**r.metrics, **({"seconds_per_clip": r.seconds} if r.seconds else {})}
        numbers = [number for name in measured for number in known.get(name, (math.nan, math.nan))]
        values = ["" if math.isnan(number) else f"{number:.6g}" for number in numbers]
        writer.writerow([*(getattr(r, name) for name in system), len(r.seeds), *values])
    return buffer.getvalue()


def _number(value: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    mean, half_width = value
    digits = 2 if abs(mean) >= 10 else 3 if mean == 0 else max(3, 1 - math.floor(math.log10(abs(mean))))
    return f"{mean:.{digits}f}" if math.isnan(half_width) else f"{mean:.{digits}f} ± {half_width:.{digits}f}"


def _seconds(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.2g}" if value[0] < 10 else f"{value[0]:.0f}"
