"""A function as a command: its signature is the options, its docstring the help."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Callable
from typing import TypeVar

from jsonargparse import ArgumentParser, set_parsing_settings

from bsa_lightning.commands.messages import unknown_option
from bsa_lightning.errors import UserError

Result = TypeVar("Result")


def call(
    function: Callable[..., Result], words: list[str], *, several: str | None = None, positional: bool = False
) -> Result:
    """Calls ``function`` with what ``words`` (the command, then its arguments) say.

    Args:
        function: with typed and documented parameters.
        words: options as ``--name value``, in ``--config`` files too; hyphens pass for underscores.
        several: the parameter that takes all plain words, one or more.
        positional: whether parameters without a default are plain words, in their order.
    """
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    parser = ArgumentParser(prog=f"lightning {words[0]}", exit_on_error=False, parser_mode="omegaconf+")
    parser.add_argument("--config", action="config", help="a YAML file with any of the options")
    if several is not None:
        parser.add_argument(several, nargs="+", type=str, help=f"one or more {several}")
    skip: set[str | int] | None = {several} if several is not None else None
    parser.add_function_arguments(function, as_positional=positional, skip=skip, sub_configs=True)
    try:
        config = parser.parse_args([_underscored(word) for word in words[1:]])
    except ArgumentError as error:
        if text := unknown_option(error, parser):
            raise UserError(text) from error
        raise
    arguments = parser.instantiate(config).as_dict()
    del arguments["config"]
    return function(**arguments)


def _underscored(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
