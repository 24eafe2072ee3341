"""What the builders of data_faults return."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random


@dataclass
class Case:
    """Something to read."""

    read: Callable[[], object]
    expected: object = None
    words: list[str] = field(default_factory=list)


Build = Callable[[Path, Random], Case]
