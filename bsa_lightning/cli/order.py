"""Whether pieces of configuration stand in an order in which each has an effect, and belong to the command."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bsa_lightning.cli.help_texts import COMMANDS, FOLDER
from bsa_lightning.cli.recipe_files import folder
from bsa_lightning.cli.setting_places import Place, places
from bsa_lightning.common.errors import UserError

_MOST = 2000
"""The most settings that are compared with each other."""


def refuse_wrong_order(words: Sequence[str]) -> None:
    """Refuses settings that a later class or a later whole recipe makes void.

    A file that is neither a recipe of this package nor followed by one may hold defaults on purpose: a line on stderr
    says that they are replaced.

    Args:
        words: the command, then its options.

    Raises:
        UserError: if there is such a setting.
    """
    found = places(words)
    if len(found) > _MOST:
        return
    for later in found:
        if _names_class(later, found) and (earlier := _forgotten(later, found)) is not None:
            raise UserError(
                f"{_source(earlier)} sets {earlier.name} before {_source(later)} names {later.value} for"
                f" {later.name}, which discards that setting; give the class first"
            )
    whole = [place for place in found if place.file is not None and place.name == "model" and place.is_class]
    for recipe in whole:
        if (earlier := _replaced(recipe, found)) is None:
            continue
        text = (
            f"{_source(earlier)} comes before --config {recipe.file}, which sets {earlier.name} again, so that it has"
            " no effect; give the whole recipe first"
        )
        if earlier.file is None or folder() in earlier.file.absolute().parents:
            raise UserError(text)
        print(f"lightning {words[0]}: {text}, unless these are defaults", file=sys.stderr)


def refuse_other_command(words: Sequence[str], known: Iterable[str]) -> None:
    """Refuses a file of ``--config`` that is for another command.

    Args:
        words: the command, then its options.
        known: the names of the command's options.

    Raises:
        UserError: if there is such a file.
    """
    ours = {name.partition(".")[0] for name in known}
    top: dict[Path, set[str]] = {}
    for place in places(words):
        if place.file is not None:
            top.setdefault(place.file, set()).add(place.name.partition(".")[0])
    for file, names in top.items():
        if names <= ours:
            continue
        fitting = [command for command in COMMANDS if command != words[0] and names <= _options(command)]
        if fitting:
            raise UserError(
                f"config is {file}, a configuration for lightning {fitting[0]}, not for lightning {words[0]}: it has"
                f" {', '.join(sorted(names - ours) or sorted(names))}; name another file, or use lightning {fitting[0]}"
            )


def _options(command: str) -> set[str]:
    """Returns the first parts of the names of a command's options, from its help."""
    return set(re.findall(r"--(\w+)", (FOLDER / f"{command}.txt").read_text(encoding="utf-8")))


def _names_class(place: Place, found: Sequence[Place]) -> bool:
    """Returns whether a place names the class of a setting that has settings of its own."""
    is_name = re.fullmatch(r"[A-Za-z_][\w.]*", place.value) is not None
    return is_name and (place.is_class or any(each.name.startswith(f"{place.name}.") for each in found))


def _forgotten(later: Place, found: Sequence[Place]) -> Place | None:
    """Returns a setting below a class that was given before the class, and not together with a class of its own."""
    before = found[: found.index(later)]
    chosen: str | None = None
    for place in before:
        named = [each for each in found if each.words == place.words and each.name == later.name and each.value]
        if place.name == later.name and place.value:
            chosen = place.value
        is_below = place.name.startswith(f"{later.name}.") and place.words != later.words and bool(place.value)
        if is_below and not named and _bare(chosen) != _bare(later.value):
            return place
    return None


def _replaced(recipe: Place, found: Sequence[Place]) -> Place | None:
    """Returns a setting of a piece, or of the command line, that a later whole recipe sets to something else."""
    ours = {place.name: place.value for place in found if place.words == recipe.words and place.value}
    for place in found[: found.index(recipe)]:
        is_whole = any(each.words == place.words and each.name == "model" and each.is_class for each in found)
        if not is_whole and place.value and ours.get(place.name, place.value) != place.value:
            return place
    return None


def _bare(name: str | None) -> str | None:
    return name.rpartition(".")[2] if name is not None else None


def _source(place: Place) -> str:
    return f"--config {place.file}" if place.file is not None else f"--{place.name}"
