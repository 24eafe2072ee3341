"""Checks of the YAML files of ``--config`` before the parser reads them, so that a message names the line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, get_loader, set_loader, set_parsing_settings

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.yaml_text import check_yaml, read_yaml

PLAIN_MODE, PARSER_MODE = "yaml", "omegaconf+"
"""The modes of jsonargparse's parser: YAML, and YAML in which ``${...}`` refers to other settings."""
_STREAMS = ("/dev/", "/proc/")
"""The folders of streams, which can be read only once, as in ``--config <(command)``."""


def prepare_parser(words: Sequence[str]) -> None:
    """Checks the files that a command line names with ``--config``, and makes the parser check all that it loads.

    In a file, ``${name:${model.init_args.weighting.class_path}}`` is the name of a class without its module.

    Args:
        words: the words of the command line.

    Raises:
        UserError: if a file is missing, empty, or not valid YAML.
    """
    for name in _config_files(words):
        if not name:
            raise UserError("config is empty; name a YAML file, or leave it out")
        if not name.startswith(_STREAMS):
            if "\0" in name or not Path(name).exists():
                raise UserError(f"config is {name!r}, but there is no such file; name a YAML file")
            read_yaml(Path(name))
            if not Path(name).read_bytes().strip():
                raise UserError(f"config is {name}, which is empty; write a setting, such as `seed_everything: 0`")
    # The parsers of classes complete shortened options; no setting of theirs can be reached from here.
    warnings.filterwarnings("error", message=r"\s*Option '[^']+' was expanded to")
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    for mode in (PLAIN_MODE, PARSER_MODE):
        ArgumentParser(parser_mode=mode).parse_string("{}")  # makes the mode's loader
        load = get_loader(mode)
        if not isinstance(load, _Checked):
            import yaml
            from omegaconf import OmegaConf

            with warnings.catch_warnings():  # a later OmegaConf has another name for it
                warnings.simplefilter("ignore")
                OmegaConf.register_new_resolver("name", lambda path: str(path).rpartition(".")[2], replace=True)

            set_loader(mode, _Checked(load), exceptions=(yaml.YAMLError,))


class _Checked:
    """A loader that checks the text first."""

    def __init__(self, load: Callable[[str], Any]) -> None:
        self.load = load

    def __call__(self, text: str) -> Any:  # noqa: ANN401 - any value of YAML
        check_yaml(text, where="a value")
        value = self.load(text)
        return {} if value is None and text.lstrip().startswith("#") else value  # the file holds comments only


def _config_files(words: Sequence[str]) -> Iterator[str]:
    words = words[: words.index("--")] if "--" in words else words
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == "--config" and following is not None:
            yield following
        elif word.startswith("--config="):
            yield word.partition("=")[2]
