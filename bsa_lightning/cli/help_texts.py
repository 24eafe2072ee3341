"""The help of commands whose options are known only when torch is imported, as text that comes with the package.

``python -m docs.tools.help_texts`` writes the texts, and a test compares them with what the parser prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "help"
"""The folder of the texts, each named after its command."""

COMMANDS = ("prepare", "score", "fit", "validate", "test", "predict", "distill")
"""The commands that have a text, in the order in which the texts are written."""

SCORE_MODEL = "score-model"
"""The text of ``lightning score --model``, which has options of its own."""


def help_text(words: Sequence[str]) -> str | None:
    """Returns the help that a command line asks for; ``None`` if it asks for none, or the command has no text.

    Args:
        words: the command, then its options.
    """
    asks = "--help" in words or "-h" in words
    if not asks or words[0] not in COMMANDS:
        return None
    is_of_model = words[0] == "score" and any(word.partition("=")[0] == "--model" for word in words)
    return (FOLDER / f"{SCORE_MODEL if is_of_model else words[0]}.txt").read_text(encoding="utf-8")
