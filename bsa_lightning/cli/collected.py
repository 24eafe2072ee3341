"""Objects from settings, with all that their constructors refuse in one message."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from bsa_lightning.cli.mistakes import enumerated
from bsa_lightning.cli.setting_places import Place, places, short_name
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.settings_alone import NotLoadedError, without_networks

Result = TypeVar("Result")

_MOST = 8
"""The most settings of one constructor that are told of at once."""


class _Refused:
    """Stands for an object that could not be made."""


REFUSED = _Refused()


class Mistakes:
    """The mistakes in the settings of a command.

    Args:
        words: the command, then its options, in which the settings are looked for.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.sentences: dict[str, None] = {}
        self._places = places(list(words))

    def add(self, error: UserError) -> None:
        """Notes a mistake, with the file and the line if a file of ``--config`` holds the setting."""
        text = " ".join(str(error).split())
        place = self._place(text)
        if place is not None:
            text = f"{place.name}{text[len(_first(text) or '') :]}"
            text += f" ({place})" if place.file is not None else ""
        self.sentences[text] = None

    def check(self, function: Callable[[], Result], otherwise: Result) -> Result:
        """Returns what a function returns; notes its ``UserError``, and returns ``otherwise``."""
        try:
            return function()
        except UserError as error:
            self.add(error)
            return otherwise

    def refuse(self) -> None:
        """Raises what has been noted.

        Raises:
            UserError: if there is a mistake.
        """
        if self.sentences:
            raise UserError(enumerated(list(self.sentences)))

    def make(self, kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as jsonargparse calls it
        """Returns an object, or ``REFUSED`` if a setting is wrong; every wrong setting is noted.

        After a mistake, the constructor is called again with a stand-in for the wrong value, to find further mistakes;
        an error then counts only if it is about another value that the user gave.

        Args:
            kind: the class.
            *args: the positional arguments.
            **kwargs: the settings.
        """
        if any(map(_is_refused, (*args, *kwargs.values()))):
            self._say_of_the_rest(kind, args, kwargs)
            return REFUSED
        try:
            return kind(*args, **kwargs)
        except NotLoadedError:  # the other settings are as they should be
            return REFUSED
        except UserError as error:
            self.add(error)
            self._say_of_the_rest(kind, args, _without(kind, kwargs, _setting(str(error), kwargs)))
            return REFUSED

    def _say_of_the_rest(self, kind: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Notes what else a constructor refuses, without loading networks."""
        settings = dict(kwargs)
        for _ in range(_MOST):
            try:
                with without_networks():
                    kind(*args, **settings)
            except UserError as error:
                name = _setting(str(error), kwargs)
                if name is not None and _is_refused(kwargs[name]):  # what is wrong with it has been said
                    settings = _without(kind, settings, name)
                    continue
                is_inner = str(error).startswith(f"{name}.")  # of what a setting will make
                if name is None or not (is_inner or str(error).startswith(f"{name} is {kwargs[name]!r}")):
                    return
                self.add(error)
                settings = _without(kind, settings, name)
            except Exception:
                return  # it may be due to a stand-in
            else:
                return

    def _place(self, text: str) -> Place | None:
        """Returns where the setting that a sentence is about was written last, if no other has its name and value."""
        name = short_name(_first(text) or "-")
        value = text.partition(" is ")[2].lstrip("\"'")
        found = [
            place
            for place in self._places
            if f".{place.name}".endswith(f".{name}") and place.value and value.startswith(place.value)
        ]
        return found[-1] if len({place.name for place in found}) == 1 else None


def _first(text: str) -> str | None:
    found = re.match(r"([\w.]+) is ", text)
    return found[1] if found else None


def _setting(text: str, given: Mapping[str, Any]) -> str | None:
    """Returns the setting that a sentence begins with, if it was given."""
    name = (_first(text) or "").partition(".")[0]
    return name if name in given else None


def _without(kind: Callable[..., Any], settings: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """Returns settings with a stand-in for one of them: its default, else 1."""
    if name is None:
        return dict(settings)
    default = inspect.signature(kind).parameters[name].default
    return {**settings, name: 1 if default is inspect.Parameter.empty else default}


def _is_refused(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_refused, value.values()))
    return value is REFUSED or (isinstance(value, list | tuple) and any(map(_is_refused, value)))
