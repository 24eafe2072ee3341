"""The classes of AudioSet that YAMNet tells apart, and which of them a caption names."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

NAMES = Path(__file__).with_name("yamnet_classes.txt")
"""The names of the classes in the order of YAMNet's logits, one a line, from TensorFlow's yamnet_class_map.csv."""


@cache
def class_names() -> tuple[str, ...]:
    """Returns the names of the 521 classes, in the order of the logits."""
    return tuple(NAMES.read_text(encoding="utf-8").splitlines())


def named_classes(caption: str) -> list[int]:
    """Returns the classes that a caption names, in rising order.

    A class is named if all words of its name, or of a part between commas, are among the caption's, apart from their
    endings: "A dog barks twice" names "Dog" and "Bark".
    """
    words = _stems(caption)
    return [i for i, parts in enumerate(_parts()) if any(part <= words for part in parts)]


@cache
def _parts() -> tuple[tuple[frozenset[str], ...], ...]:
    """Returns the stems of each part of each class's name."""
    return tuple(
        tuple(stems for part in re.sub(r"\(.*?\)", "", name).split(",") if (stems := _stems(part)))
        for name in class_names()
    )


def _stems(text: str) -> frozenset[str]:
    return frozenset(_stem(word) for word in re.findall(r"[a-z]+", text.lower()))


def _stem(word: str) -> str:
    """Returns a word without the endings of plurals and of verbs."""
    for ending, instead in (("ies", "y"), ("ying", "y"), ("ing", ""), ("ied", "y"), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 1 and not word.endswith("ss"):
            word = word.removesuffix(ending) + instead
            break
    doubled = len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls"
    return (word[:-1] if doubled else word).removesuffix("e")
