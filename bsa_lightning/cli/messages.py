"""Errors that are due to a user's mistake, in one sentence, without the text that the parser wraps them in."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from argparse import ArgumentError, ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from bsa_lightning.cli.classes import MODULES
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import disk_trouble

_KEY = re.compile(r'(?:Parser key|[Kk]ey) "([^"]+)"')
_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_OPTION = re.compile(r"(?:unrecognized arguments: --|ambiguous option: --|Option ')([\w.]+)")
_GIVEN = re.compile(r"Problem with given class_path '(.+)'$")
_TYPE = re.compile(r"Expected a (?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[(.+?)\])")
_VALUE = re.compile(r"G(?:ot|iven) value: (.*?)(?:\. Got value: .*)?$", re.MULTILINE)
_MODULE = re.compile(r"No module named '([^']+)'")
_ATTRIBUTE = re.compile(r"module '([^']+)' has no attribute '([^']+)'")
_NO_WEIGHTING = re.compile(r"Import path (\S+) does not correspond to a subclass of Weighting")
_NOT_A_HELP = re.compile(
    r"Does not validate against any|Subtypes:|Errors:|- Expected a path|- Expected a <class 'NoneType'>"
)


def sentence(error: BaseException) -> str | None:
    """Returns the sentence on an error that is due to a user's mistake; ``None`` for any other error."""
    chain = list(causes(error))
    for link in chain:
        if isinstance(link, UserError):
            return _one_line(str(link))
    for link in chain:
        if text := _outside(link):
            return text
    if not any(isinstance(link, ArgumentError) for link in chain):
        return None
    text = str(error).partition("Given value type:")[0]
    keys = list(dict.fromkeys(_KEY.findall(text)))
    place = ".".join(key for key in keys if not any(key != other and other.startswith(f"{key}.") for other in keys))
    reasons = [line for line in text.splitlines() if line.strip() and not _NOT_A_HELP.search(line)]
    reason = _one_line(" ".join(_GIVEN.sub(r"\1:", _KEY.sub("", line).strip(" :-")) for line in reasons))
    if unknown := _OPTION.search(text):
        option = f"{place}.{unknown[1]}" if place else unknown[1]
        return f"there is no option --{option}; `--print_config` shows those that there are"
    if place and (types := _types(text)) and (value := _VALUE.search(str(error))):
        return f"{place} is {value[1]}, but must be {types}"
    reason = _unknown_path(text) or reason
    return f"{place}: {reason}" if place else reason


def _outside(error: BaseException) -> str:
    """Returns the sentence on an error of the file system, or of a reference in YAML; empty for any other error."""
    if text := disk_trouble(error, Path(os.fsdecode(getattr(error, "filename", None) or ".")).parent):
        return text
    if type(error).__module__.startswith("omegaconf."):
        key = str(getattr(error, "full_key", "") or "a setting")
        broken = type(error).__name__ == "GrammarParseError"
        reason = "it refers to itself, or is cut short" if broken else _one_line(str(error).split("\n")[0])
        return (
            f"{key.partition('.')[2] or key} holds a reference that leads nowhere ({reason}); ${{...}} names another"
            " setting by its whole path, as --print_config shows them"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)} cannot be used ({error.strerror}); name another file or folder"
    return ""


def _types(text: str) -> str:
    """Returns the types of the innermost setting in the parser's message; empty if it takes a class."""
    found = _TYPE.findall(text[text.rfind('key "') :])
    names = [name for name in dict.fromkeys(name or choices for name, choices in found) if name != "NoneType"]
    return " or ".join(names)


def _unknown_path(text: str) -> str:
    """Returns the sentence on a dotted path or a bare name that leads nowhere; empty if the error is another one."""
    if found := _CLASS.search(text):
        return unknown_class(found[1])
    if found := _MODULE.search(text):
        return unknown_module(found[1])
    if found := _ATTRIBUTE.search(text):
        return f'there is no "{found[2]}" in the module {found[1]}'
    if found := _NO_WEIGHTING.search(text):
        return f"{found[1]} is no class of weightings; name a function as OwnWeighting, with --model.weighting.function"
    return ""


def unknown_class(name: str) -> str:
    """Returns the sentence on a name that is not a class, with a hint at a similar class that has a bare name."""
    if name == "None":  # what jsonargparse makes of a null for a nested class on the command line
        return "null is understood in a YAML file, not on the command line; write it there, and give it as --config"
    known = [
        attribute
        for module_name, module in list(sys.modules.items())
        if module_name in MODULES
        for attribute, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module_name and not attribute.startswith("_")
        if attribute != name and not inspect.isabstract(value)
    ]
    return f'there is no class "{name}"{did_you_mean(name, known)} (a dotted path names one from elsewhere)'


def unknown_module(name: str) -> str:
    """Returns the sentence on a module that is not found, with the places where Python looks."""
    path = os.environ.get("PYTHONPATH") or "which is not set"
    return (
        f'there is no module "{name}" where Python looks: in the folders of PYTHONPATH ({path}), and among the packages'
        f" installed in {sys.prefix}; write PYTHONPATH=. before the command for a module in the current folder, or"
        " install its package"
    )


def unknown_option(error: ArgumentError, parser: ArgumentParser) -> str | None:
    """Returns the sentence on an unknown option, with a hint at a similar one; ``None`` for any other error."""
    unknown = re.match(r"unrecognized arguments: (--[\w.]+)", str(error))
    if unknown is None:
        return None
    known = [option for action in parser._actions for option in action.option_strings]
    return f"there is no option {unknown[1]}{did_you_mean(unknown[1], known)}"


def did_you_mean(word: str, known: list[str]) -> str:
    """Returns a hint at the known word that is most similar; empty if no word is similar."""
    near = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {near[0]}?" if near else ""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, and the errors that it was raised from or during."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _one_line(text: str) -> str:
    return " ".join(text.split())
