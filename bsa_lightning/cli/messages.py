"""Errors that are due to a user's mistake, in one sentence, without the text that the parser wraps them in."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator
from pathlib import Path

from bsa_lightning.cli.known_settings import class_names, did_you_mean, settings_of_class
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import disk_trouble

_KEY = re.compile(r'(?:Parser key|[Kk]ey) "([^"]+)"')
_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_OPTION = re.compile(r"(?:unrecognized arguments: --|Option ')([\w.]+)")
_LACKING = re.compile(r"argument (?:-c/)?--([\w.]+): expected one argument")
_REQUIRED = re.compile(r"arguments are required: ([\w., ]+)")
_OWNER = re.compile(r"(?:given class_path |class_path=)'([\w.]+)'")
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
    return refusal(error)[0] if any(isinstance(link, ArgumentError) for link in chain) else None


def refusal(error: BaseException) -> tuple[str, str]:
    """Returns the sentence on an error of the parser, and the dotted name of the setting; empty if it names none."""
    text = str(error).partition("Given value type:")[0]
    keys = list(dict.fromkeys(_KEY.findall(text)))
    place = ".".join(key for key in keys if not any(key != other and other.startswith(f"{key}.") for other in keys))
    if unknown := _OPTION.search(text):
        option = f"{place}.{unknown[1]}" if place else unknown[1]
        owners = _OWNER.findall(str(error))
        near = did_you_mean(unknown[1], settings_of_class(owners[-1])) if owners else ""
        prefix = option.removesuffix(unknown[1])
        hint = near.replace("mean ", f"mean --{prefix}") or "; `--print_config` shows those that there are"
        return f"there is no option --{option}{hint}", option
    if lacking := _LACKING.search(text):
        return f"--{lacking[1]} has no value; give it one, or leave it out", lacking[1]
    if required := _REQUIRED.search(text):
        names = [name.rpartition(".")[2] for name in required[1].split(", ")]
        how = "name a recipe, such as --config demo" if "model" in names else "--help says how"
        return f"{' and '.join(names)} must be set; {how}", ""
    bad_class = _CLASS.findall(text)
    is_class = bool(bad_class) and (not _types(text) or bad_class[-1][:1].isupper())
    if place and not is_class and (types := _types(text)) and (value := _VALUE.search(str(error))):
        return f"{place} is {value[1]}, but must be {types}", place
    reasons = [line for line in text.splitlines() if line.strip() and not _NOT_A_HELP.search(line)]
    reason = _one_line(" ".join(_GIVEN.sub(r"\1:", _KEY.sub("", line).strip(" :-")) for line in reasons))
    reason = _unknown_path(text) or reason
    return (f"{place}: {reason}" if place else reason), place


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
    if names := _CLASS.findall(text):
        return unknown_class(names[-1])
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
    hint = did_you_mean(name, [known for known in class_names() if known != name])
    return f'there is no class "{name}"{hint} (a dotted path names one from elsewhere)'


def unknown_module(name: str) -> str:
    """Returns the sentence on a module that is not found, with the places where Python looks."""
    path = os.environ.get("PYTHONPATH") or "which is not set"
    return (
        f'there is no module "{name}" where Python looks: in the folders of PYTHONPATH ({path}), and among the packages'
        f" installed in {sys.prefix}; write PYTHONPATH=. before the command for a module in the current folder, or"
        " install its package"
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, and the errors that it was raised from or during."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _one_line(text: str) -> str:
    return " ".join(text.split())
