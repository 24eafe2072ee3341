"""A plugin of pytest: each test's outcome is in a file as soon as it is known, for a run that may be cut short.

``pytest -p experiments.gpu.record`` with ``GPU_TESTS`` naming the file, of JSON lines.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_workers: list[Any] = []
"""This process, if pytest-xdist has started it; the one that starts it records for all."""


def pytest_configure(config: Any) -> None:  # noqa: ANN401 - pytest's Config, without importing pytest
    """Finds out whether this is a process of pytest-xdist."""
    if hasattr(config, "workerinput"):
        _workers.append(config)


def pytest_runtest_logreport(report: Any) -> None:  # noqa: ANN401 - a TestReport
    """Appends the outcome of a test: with several processes, in the one that starts them."""
    if _workers or (report.when != "call" and report.passed):
        return
    why = ""
    if report.skipped:
        why = report.longrepr[2]
    elif report.failed:
        why = report.longreprtext[-3000:]
    result = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2), "why": why}
    with Path(os.environ["GPU_TESTS"]).open("a") as file:
        file.write(json.dumps(result) + "\n")
