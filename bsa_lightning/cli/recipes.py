"""``lightning recipes``: the configurations that come with the package, to be listed, read and copied."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from bsa_lightning.cli.call import call
from bsa_lightning.cli.recipe_files import find_recipe, recipes
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write


def run(words: list[str]) -> None:
    """Runs the command."""
    if len(words) > 1:
        call(copy, words, positional=True)
        return
    print("\n".join(f"{name}\n{_comment(path)}" for name, path in recipes().items()))
    print("`lightning recipes NAME` prints one, and `lightning recipes NAME --out FILE` makes a copy to be changed.")


def copy(name: str, out: Path | None = None) -> None:
    """Prints or copies a recipe, which is a configuration that comes with the package; without a name, lists them all.

    Args:
        name: the name of the recipe, such as demo or trainer/gpus, as `--config` takes it.
        out: the file to write the recipe to, which must not exist; ``None`` prints the recipe.
    """
    text = find_recipe(name, setting="name").read_text(encoding="utf-8")
    if out is None:
        print(text, end="")
        return
    if Path(out).exists():
        raise UserError(f"out is {out}, which is there already; name another file")
    with atomic_write(Path(out)) as file:
        file.write_text(text, encoding="utf-8")
    print(f"{out}: a copy of {name}; use it with --config {out}")


def _comment(path: Path) -> str:
    """Returns the lines of comment that a recipe begins with, indented."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return "\n".join(f"    {line.removeprefix('#').strip()}" for line in lines)
