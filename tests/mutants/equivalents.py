"""The list of mutants that no test can or should see."""

from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).parent / "equivalent.txt"


class Equivalent(NamedTuple):
    """An entry: the key of a mutant, and why it may survive."""

    file: str
    function: str
    before: str
    after: str
    reason: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """As of a mutant."""
        return self[:4]


def read_equivalents(path: Path = LIST) -> list[Equivalent]:
    """The entries: ``file function``, ``- statement``, ``+ changed statement``, ``= reason``, and an empty line.

    Raises:
        SystemExit: naming the entry that has another form.
    """
    entries = []
    for block in path.read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        marks = [line[:2] for line in lines[1:4]]
        if marks != ["- ", "+ ", "= "] or not lines[3][2:].strip():
            raise SystemExit(f"{path} has an entry of another form: {lines}")
        file, _, function = lines[0].partition(" ")
        reason = " ".join([lines[3][2:], *(line.strip() for line in lines[4:])])
        entries.append(Equivalent(file, function, lines[1][2:], lines[2][2:], reason))
    return entries
