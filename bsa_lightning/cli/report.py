"""``lightning report RUN...``: run folders to a table, a figure and a listening page."""

from __future__ import annotations

import sys
from pathlib import Path

from bsa_lightning.cli.call import call
from bsa_lightning.cli.run_names import listed, scored_runs
from bsa_lightning.common.errors import UserError
from bsa_lightning.reporting.report import report as report_on


def run(words: list[str]) -> None:
    """Runs the command."""
    call(report, words, several="runs")


def report(runs: list[Path], out: Path | None = None) -> None:
    """Writes a table, figures and a self-contained listening page, and prints the table.

    The files are ``table.md``, ``table.csv``, ``figure.png``, ``figure.svg`` and ``index.html``; for runs that logged
    their distillation error by signal-to-noise ratio also ``snr.png`` and ``snr.svg``; for runs that differ in their
    seed only also ``differences.csv``, with paired differences over the seeds. Of such repeats, the sounds and the
    errors by signal-to-noise ratio of the first run are shown.

    Args:
        runs: the folders of scored runs, such as runs/demo; a folder of runs stands for all runs in it, of which those
            without scores are left out.
        out: the folder for the files; ``None`` is ``report/`` in the first run, or in the folder of the runs.
    """
    if len({Path(each).resolve() for each in runs}) < len(runs):
        raise UserError("runs names one folder twice; name each run once")
    scored, left_out = scored_runs(runs)
    if left_out:
        print(f"lightning report: without scores, and left out: {listed(left_out)}", file=sys.stderr)
    if out is None and len(runs) == 1 and len(scored) > 1:
        out = Path(runs[0]) / "report"
    report_on(scored, out)
