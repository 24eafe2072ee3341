"""What Lightning says that nobody needs: filters of its log and of its warnings."""

from __future__ import annotations

import logging
import re
import warnings

RANK_ZERO = logging.getLogger("lightning.pytorch.utilities.rank_zero")
"""Where Lightning tells of devices and of its tips."""
_SEEDS = logging.getLogger("lightning.fabric.utilities.seed")

NEEDLESS_WARNINGS = (
    r"Found \d+ module\(s\) in eval mode",  # the teacher, on purpose
    r"The '\w+' does not have many workers",  # latents are memory-mapped: reading ahead gains nothing
    r"The number of training batches \(\d+\) is smaller than the logging interval",  # short epochs, long runs
    r"You're resuming from a checkpoint that ended before the epoch ended",  # the data module knows where it was
    r"\s+(By default only one Jsonargparse|``instantiate_classes``)",  # Lightning's command line
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning beside torch 2.11
)

_NEEDLESS_LINES = (
    "Tip:",  # advertises cloud services
    "TPU available: False",
    "Detected KeyboardInterrupt",  # the command says how to go on
    "stopped: `max_",  # the last line of the command says so, and how much is left
)
_DEVICES = re.compile(r"[A-Z]PU available:|LOCAL_RANK:|distributed_backend=|All distributed processes")
"""Lines on devices, which are said once in a process."""
_said: set[str] = set()


def quieten() -> None:
    """Keeps Lightning from saying what a run does not need."""
    for message in NEEDLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if _is_needed not in RANK_ZERO.filters:
        RANK_ZERO.addFilter(_is_needed)
        _SEEDS.addFilter(lambda record: "Seed set to" not in record.getMessage())  # config.yaml records it


def _is_needed(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    if any(needless in text for needless in _NEEDLESS_LINES):
        return False
    if _DEVICES.match(text) is None:
        return True
    is_first = text not in _said or getattr(record, "is_first", False)  # a line that was held back comes twice
    _said.add(text)
    record.is_first = is_first
    return is_first
