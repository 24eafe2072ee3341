"""The table of a report, in the layout of Liu et al., Table 1."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from bsa_lightning.reporting.run_folder import REFERENCE, Result, metrics_of

TITLES = {
    "fd_logmel": "FD log-mel ↓",
    "trajectory_error": "Trajectory error ↓",
    "fad_vggish": "FAD ↓",
    "fd_pann": "FD ↓",
}


def markdown(results: Sequence[Result]) -> str:
    """Rows: teacher and each weighting by steps; every number as mean ± half width of its 95 % interval."""
    metrics = metrics_of(results)
    header = ["Model", "Steps", "NFE", "Guidance", *(TITLES.get(name, name) for name in metrics)]
    lines = []
    for result in results:
        if result.model == REFERENCE:
            continue
        numbers = [_number(result.metrics.get(name)) for name in metrics]
        guidance = f"{result.guidance} {result.guidance_scale:g}"
        lines.append([result.name, str(result.num_steps), str(result.nfe), guidance, *numbers])
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    text = "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in [header, rule, *lines]
    )
    return text + "\n" + note(results) + "\n"


def note(results: Sequence[Result]) -> str:
    """What the numbers rest on."""
    scored = [result for result in results if result.model != REFERENCE]
    seeds = sorted({len(result.seeds) for result in scored})
    repeats = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    text = (
        f"{scored[0].num_clips} captions, {repeats} sampling seeds; ± is the 95 % interval of the mean (Student's t)."
    )
    for result in results:
        if result.model == REFERENCE:
            halves = ", ".join(f"{TITLES.get(name, name)} {mean:.3g}" for name, (mean, _) in result.metrics.items())
            text += f" Two halves of the {result.num_clips} reference clips, of different captions: {halves}."
    return text


def comma_separated(results: Sequence[Result]) -> str:
    """The same rows with every number in full, one column for each mean and half width."""
    metrics = metrics_of(results)
    columns = [column for name in metrics for column in (name, f"{name}_ci95")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["model", "weighting", "num_steps", "nfe", "guidance", "guidance_scale", "num_clips", "num_seeds", *columns]
    )
    for r in results:
        numbers = [number for name in metrics for number in r.metrics.get(name, (math.nan, math.nan))]
        cells = ["" if math.isnan(number) else f"{number:.6g}" for number in numbers]
        writer.writerow(
            [r.model, r.weighting, r.num_steps, r.nfe, r.guidance, r.guidance_scale, r.num_clips, len(r.seeds), *cells]
        )
    return buffer.getvalue()


def _number(value: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    mean, half_width = value
    digits = 3 if abs(mean) < 10 else 2
    return f"{mean:.{digits}f}" if math.isnan(half_width) else f"{mean:.{digits}f} ± {half_width:.{digits}f}"
