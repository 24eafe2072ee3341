"""``lightning report RUN...``: run folders to a table, a figure and a listening page."""

from __future__ import annotations

from bsa_lightning.cli.call import call
from bsa_lightning.reporting.report import report


def run(words: list[str]) -> None:
    """Runs the command."""
    call(report, words, several="runs")
