"""The recipes that come with the package, and what ``--config NAME`` means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bsa_lightning.cli.known_settings import did_you_mean
from bsa_lightning.common.errors import UserError

_OPTIONS = ("--config", "-c")
_PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """Returns the folder of the recipes: in an installed package beside its code, in a clone at the top."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def recipes() -> dict[str, Path]:
    """Returns the recipes by name: complete ones such as ``demo`` first, then pieces such as ``trainer/gpus``."""
    named = {path.relative_to(folder()).with_suffix("").as_posix(): path for path in folder().rglob("*.yaml")}
    return {name: named[name] for name in sorted(named, key=lambda name: ("/" in name, name))}


def find_recipe(name: str, *, setting: str) -> Path:
    """Returns the file of a recipe.

    Args:
        name: the name of a recipe, such as ``demo`` or ``trainer/gpus``.
        setting: the setting that holds the name, for the message.

    Raises:
        UserError: if there is no recipe of this name.
    """
    known = recipes()
    if name not in known:
        hint = did_you_mean(name, list(known)) or "; `lightning recipes` lists the recipes"
        raise UserError(f"{setting} is {name!r}, but there is no such file or recipe{hint}")
    return known[name]


def with_recipe_files(words: Sequence[str]) -> list[str]:
    """Returns a command line in which the names of recipes are replaced by their files.

    A value of ``--config`` that is a file stays as it is, and so does one with a suffix, which can be no name.

    Args:
        words: the words of the command line.

    Raises:
        UserError: if a value is neither a file nor a recipe, or may be meant as either.
    """
    return list(_replaced(words))


def _replaced(words: Sequence[str]) -> Iterator[str]:
    is_value = False
    for number, word in enumerate(words):
        if word == "--":
            yield from words[number:]
            return
        option, equals, value = word.partition("=")
        if is_value:
            yield _file(word)
        elif equals and option in _OPTIONS:
            yield f"{option}={_file(value)}"
        else:
            yield word
        is_value = not is_value and word in _OPTIONS


def _file(value: str) -> str:
    """Returns the file that a value of ``--config`` names: itself, or that of a recipe."""
    if not value or "\0" in value:
        return value
    path = Path(value)
    if path.exists() and not path.is_dir():
        return value
    if path.suffix in (".yaml", ".yml"):
        name = value.removeprefix("configs/").removesuffix(path.suffix)
        if not path.exists() and name in recipes():
            raise UserError(
                f"config is {value!r}, but there is no such file; the recipe of this name is --config {name}"
            )
        return value
    if path.is_absolute() or path.suffix or value.startswith(".") or (path.is_dir() and value not in recipes()):
        return value
    recipe = find_recipe(value, setting="config")
    for beside in (Path(f"{value}.yaml"), Path(f"{value}.yml")):
        if beside.is_file() and not beside.samefile(recipe):
            raise UserError(
                f"config is {value!r}, which may be {beside} or the recipe of this name; write --config {beside} for"
                f" the file, or --config {recipe} for the recipe"
            )
    return str(recipe)
