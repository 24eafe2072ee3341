"""What Lightning says that nobody needs: filters of its log and of its warnings."""

from __future__ import annotations

import logging
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
_DEVICES = "GPU available:"


def quieten() -> None:
    """Keeps Lightning from saying what a run does not need."""
    for message in NEEDLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if _is_needed not in RANK_ZERO.filters:
        RANK_ZERO.addFilter(_is_needed)
        _SEEDS.addFilter(lambda record: "Seed set to" not in record.getMessage())  # config.yaml records it


def _is_needed(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _NEEDLESS_LINES)


def is_about_devices(record: logging.LogRecord) -> bool:
    """Returns whether a line tells which devices there are."""
    return record.getMessage().startswith(_DEVICES)
