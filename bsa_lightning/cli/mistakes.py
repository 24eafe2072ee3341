"""All mistakes of a command line at once: each is taken out, and the rest is read again."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from argparse import ArgumentError, ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bsa_lightning.cli.known_settings import did_you_mean
from bsa_lightning.cli.messages import refusal, sentence
from bsa_lightning.cli.order import refuse_other_command, refuse_wrong_order
from bsa_lightning.cli.recipe_files import recipes
from bsa_lightning.cli.setting_places import Place, places, short_name, without_setting
from bsa_lightning.common.errors import UserError

Parsed = TypeVar("Parsed")

_MOST = 12
"""The most times that a command line is read again."""
_UNKNOWN, _REQUIRED = "unrecognized arguments: ", "are required"
_OTHER = re.compile(r"does not accept option '([\w.]+)'")
_SHORTENED = re.compile(
    r"(?:ambiguous option: |Option ')--([\w.]+)(?:\S* could match |' was expanded to ')--([\w.]+)", re.DOTALL
)


def read_all(parse: Callable[[list[str]], Parsed], words: Sequence[str], parser: ArgumentParser) -> Parsed:
    """Parses a command line, and says all that is wrong with it at once.

    Args:
        parse: parses the words of a command line without the program.
        words: the command, then its options.
        parser: the parser that knows the options.

    Raises:
        UserError: if something is wrong.
    """
    refuse_other_command(words, (name.lstrip("-") for name in _options(parser)))
    refuse_wrong_order(words)
    try:
        return parse(list(words))
    except ArgumentError as error:
        raise UserError(enumerated(_all(error, parse, list(words), parser))) from error


def enumerated(sentences: Sequence[str]) -> str:
    """Returns sentences as one, with numbers if there are several."""
    if len(sentences) == 1:
        return sentences[0]
    return f"{len(sentences)} mistakes: " + " ".join(f"({n}) {text}" for n, text in enumerate(sentences, 1))


def _all(
    error: ArgumentError, parse: Callable[[list[str]], object], words: list[str], parser: ArgumentParser
) -> list[str]:
    """Returns a sentence on each mistake, of which ``error`` is the first."""
    found: dict[str, None] = {}
    words = [word for word in words if not word.startswith("--print_config")]
    as_written = words
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for number in range(_MOST):
            rest = words
            for text, name in _mistakes(error, parser, words[0]):
                if found and _REQUIRED in str(error):  # perhaps by one of the mistakes
                    break
                place, written = _last(rest, name), _last(as_written, name)
                found[f"{text} ({written})" if written is not None and written.file is not None else text] = None
                if place is not None:
                    rest = _without(rest, place, Path(folder) / f"{number}.yaml")
                elif name in rest[1:]:  # a word that belongs to no option
                    rest = [rest[0], *(word for word in rest[1:] if word != name)]
            if rest == words:
                break
            words = rest
            try:
                parse(list(words))
                break
            except ArgumentError as following:
                error = following
            except (Exception, SystemExit):
                break
    return list(found)


def _mistakes(error: ArgumentError, parser: ArgumentParser, command: str) -> list[tuple[str, str]]:
    """Returns a sentence on each mistake that one error tells of, and the name of its setting."""
    text = str(error)
    options = _options(parser)
    if other := _OTHER.search(text):
        return [(f"there is no option --{other[1]}{did_you_mean(f'--{other[1]}', options)}", other[1])]
    if short := _SHORTENED.search(text):  # of a class, whose parser does not know where the class is
        within = f"{refusal(error)[1]}." if refusal(error)[1] else ""
        return [(f"there is no option --{within}{short[1]}, did you mean --{within}{short[2]}?", within + short[1])]
    if not text.startswith(_UNKNOWN):
        said = sentence(error) or ""
        return [(said, refusal(error)[1])]
    found, is_value = [], False
    for word in text.removeprefix(_UNKNOWN).split():
        option = word.partition("=")[0]
        if re.match(r"-+[A-Za-z]", word):
            known = [name for name in options if not option.startswith(f"{name}.")]
            found.append((f"there is no option {option}{did_you_mean(option, known)}", option.lstrip("-")))
        elif not is_value:
            found.append((_stray(word, command), word))
        is_value = word.startswith("-") and "=" not in word
    return found


def _options(parser: ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def _stray(word: str, command: str) -> str:
    """Returns the sentence on a word that belongs to no option."""
    path = Path(word)
    if word in recipes() or (path.suffix in (".yaml", ".yml") and path.is_file()):
        return f"{word} is a configuration; write --config {word}"
    if (path / "config.yaml").is_file():
        return f"{word} is a run; write --config {path / 'config.yaml'}"
    return f"{word} belongs to no option; `lightning {command} --help` lists the options, each with its value"


def _last(words: Sequence[str], name: str) -> Place | None:
    """Returns where a setting was written last, which is the value that the parser has refused."""
    wanted = short_name(name)
    return next((place for place in reversed(places(words)) if name and place.name == wanted), None)


def _without(words: list[str], place: Place, file: Path) -> list[str]:
    """Returns a command line without a setting, and without the settings below it.

    Args:
        words: the command, then its options.
        place: where the setting was written.
        file: the file to write what is left of a file of ``--config``.
    """
    if place.file is None:
        dropped = {
            number
            for each in places(words)
            if each.file is None and (each.words == place.words or each.name.startswith(f"{place.name}."))
            for number in each.words
        }
        return [word for number, word in enumerate(words) if number not in dropped]
    import yaml

    content = yaml.safe_load(place.file.read_text(encoding="utf-8-sig"))
    file.write_text(yaml.safe_dump(without_setting(content, place.name), sort_keys=False), encoding="utf-8")
    return [*words[: place.words.start], f"--config={file}", *words[place.words.stop :]]
