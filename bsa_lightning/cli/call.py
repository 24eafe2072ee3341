"""Functions as commands: the options are the function's parameters, the help text is its docstring."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, TypeVar

from docstring_parser import DocstringStyle, parse
from jsonargparse import ArgumentParser

from bsa_lightning.cli.config_files import PARSER_MODE, PLAIN_MODE, prepare_parser
from bsa_lightning.cli.mistakes import read_all
from bsa_lightning.common.errors import UserError

Result = TypeVar("Result")


def call(
    function: Callable[..., Result],
    words: list[str],
    *,
    several: str | None = None,
    positional: bool = False,
    refused: Callable[[Exception, Mapping[str, Any]], None] | None = None,
) -> Result:
    """Calls a function with the arguments of a command line, and returns its result.

    Args:
        function: the function, with typed and documented parameters.
        words: the command, then its options as ``--name value``, where hyphens may stand for underscores, and the files
            of further options as ``--config FILE``.
        several: the name of the parameter that takes all positional words, one or more, literally; ``None`` if there is
            no such parameter.
        positional: whether the parameters without a default are positional, in their order.
        refused: is called with the error and all settings if a class of the settings refuses to be made.

    Raises:
        UserError: if an option is unknown or empty, or there is no word for ``several``.
    """
    prepare_parser(words)
    # References to other settings are resolved in files only; on the command line they are taken literally.
    mode = PARSER_MODE if any(word.startswith("--config") for word in words) else PLAIN_MODE
    described = parse(inspect.getdoc(function) or "", style=DocstringStyle.GOOGLE).long_description or ""
    parser = ArgumentParser(
        prog=f"lightning {words[0]}",
        description=described.replace("``", ""),
        exit_on_error=False,
        parser_mode=mode,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file with any of the options")
    if several is not None:
        parser.add_argument(several, nargs="*", type=str, help=f"one or more {several}")
    skip: set[str | int] | None = {several} if several is not None else None
    parser.add_function_arguments(_unexported(function), as_positional=positional, skip=skip, sub_configs=True)
    plain, options = split(words[1:]) if several is not None else ([], words[1:])
    _refuse_empty(options)
    options = [_underscored(word) for word in options]
    config = read_all(lambda given: parser.parse_args(given[1:]), [words[0], *options], parser)
    try:
        arguments = parser.instantiate(config).as_dict()
    except Exception as error:
        if refused is not None:
            refused(error, config.as_dict())
        raise
    arguments.pop("config", None)
    if several is not None:
        arguments[several] = plain or arguments[several]
        if not arguments[several]:
            raise UserError(f"there are no {several}; `lightning {words[0]} --help` says how they are given")
    return function(**arguments)


def _unexported(function: Callable[..., Result]) -> Callable[..., Result]:
    """Returns the function under a name that no package exports.

    The parser looks for the name in every package above the function's module, and ``bsa_lightning.report`` would
    import all that a notebook needs.
    """

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Result:  # noqa: ANN401 - those of the function
        return function(*args, **kwargs)

    command.__qualname__ = f"command {function.__qualname__}"
    return command


def _refuse_empty(words: list[str]) -> None:
    """Refuses an empty option or positional word, which is what a shell variable that is not set expands to.

    Raises:
        UserError: if there is one.
    """
    for before, word in pairwise(["the first word", *words]):
        name, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if equals and not value:
            raise UserError(f"{name} is empty; give it a value, or leave it out")


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """Returns positional words, and options with their values; all words after ``--`` are positional."""
    plain: list[str] = []
    options: list[str] = []
    waiting = False
    for number, word in enumerate(words):
        if word == "--" and not waiting:
            return plain + words[number + 1 :], options
        if waiting or word.startswith("--") or word == "-h":
            options.append(word)
            waiting = not waiting and word.startswith("--") and "=" not in word and word not in _WITHOUT_VALUE
        else:
            plain.append(word)
    return plain, options


_WITHOUT_VALUE = ("--help", "--print_config", "--print-config")
"""The options without a value; all others have one value."""


def _underscored(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
