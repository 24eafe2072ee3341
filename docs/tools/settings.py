"""Writes docs/settings.md from signatures and docstrings: ``python -m docs.tools.settings``."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from docstring_parser import DocstringStyle, parse
from lightning.pytorch.cli import LightningArgumentParser

from bsa_lightning import api
from bsa_lightning.cli import (
    classes,
    convert,
    dashboard,
    distill,
    export,
    generate,
    recipes,
    report,
    runs,
    score,
    score_model,
)
from bsa_lightning.cli.fit import Command
from bsa_lightning.data.clips import Clips
from bsa_lightning.data.datamodule import AudioCapsLatents, Prepared
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.recordings import Columns
from bsa_lightning.diffusion.weighting import Weighting
from bsa_lightning.distillation.denoising import Denoising
from bsa_lightning.distillation.guidance_modes import GuidanceMode
from bsa_lightning.distillation.methods import Method
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.evaluation.embeddings.reading import Reading
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.generation.predict import Captions, Generation
from bsa_lightning.generation.samplers import Sampler
from bsa_lightning.models.lora import LoRA
from bsa_lightning.models.registry import register_family
from bsa_lightning.training.bad_updates import BadUpdates
from bsa_lightning.training.latent_module import NetworkOptions
from bsa_lightning.training.rank_watch import RankWatch
from bsa_lightning.training.sharding import Sharded

PAGE = Path(__file__).parent.parent / "settings.md"

_INTRODUCTION = """# Settings

This page is generated from the signatures and docstrings of the code by `python -m docs.tools.settings`, and a test
compares the two. A setting can be given in a YAML file (`--config FILE`) or as an option (`--model.seed 1`). A class is
named by `class_path`, with its settings in `init_args`; classes of this page may be named by their bare name (`BSA`).
`lightning COMMAND --help` prints the same descriptions.
"""

_LIGHTNING = """
Beside these, the options of Lightning's own command line: `--config`, `--print_config`, `--seed_everything`,
`--ckpt_path` (`last` goes on with the run), `--trainer.*`, `--model.*` and `--data.*`.
"""


def page() -> str:
    """The whole page."""
    classes.register()
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield "## Options of fit, validate, test and predict\n"
    yield from _table(_run_options())
    yield _LIGHTNING
    yield "## Training\n"
    yield from _sections(ProgressiveDistillation, Denoising, Plan, NetworkOptions, LoRA)
    yield from _group("Weightings", "weighting", Weighting)
    yield from _group("Guidance modes", "guidance", GuidanceMode)
    yield from _group("Methods", "method", Method)
    yield "## Data\n"
    yield from _sections(AudioCapsLatents, Prepared)
    yield from _group("Clips", "clips", Clips)
    yield from _sections(Columns)
    yield "## Scores\n"
    yield from _sections(ScoringSettings)
    yield from _group("Embeddings", "embeddings", Embedding)
    yield from _group("Readings", "reading", Reading)
    yield from _group("Samplers", "rivals", Sampler)
    yield "## Callbacks and strategies\n"
    yield "`BadUpdates` and `RankWatch` are part of every run; `trainer.callbacks` may list one with other settings.\n"
    yield from _sections(BadUpdates, RankWatch, Sharded)
    yield "## Generation with predict\n"
    yield from _sections(Generation, Captions)
    yield "## Python functions\n"
    yield "What `import bsa_lightning as bsa` exports beside the classes of this page.\n"
    ours = (api.load_model, api.sample, api.distill, api.evaluate, api.report, api.score)
    for function in (*ours, export.export, register_family):
        yield from _section(function, title=f"bsa.{function.__name__}")
    yield "## Options of the other commands\n"
    commands: dict[str, Callable[..., Any]] = {
        "distill": distill.distill,
        "recipes": recipes.copy,
        "prepare": prepare_folder,
        "generate": generate.generate,
        "convert": convert.convert,
        "export": export.export,
        "score": score.score,
        "score --model": score_model.score_model,
        "report": report.report,
        "runs": runs.runs,
        "dashboard": dashboard.dashboard,
    }
    for name, function in commands.items():
        yield from _section(function, title=f"lightning {name}")


def _group(title: str, setting: str, base: type) -> Iterator[str]:
    """A section with all classes of this package that a setting may name."""
    yield f"## {title}\n"
    yield f"What the setting `{setting}` may name, or a class of your own that inherits from `{_path(base)}`.\n"
    yield from _sections(*subclasses(base))


def _sections(*classes: type) -> Iterator[str]:
    for cls in classes:
        yield from _section(cls)


def subclasses(base: type) -> list[type]:
    """All classes below ``base`` that a configuration may name by bare name, in the order in which they are written."""
    found: dict[type, None] = {}
    cls: type
    for cls in base.__subclasses__():
        is_listed = cls.__module__ in classes.MODULES and not cls.__name__.startswith("_")
        if is_listed and not inspect.isabstract(cls):
            found[cls] = None
        found |= dict.fromkeys(subclasses(cls))
    return sorted(found, key=lambda cls: (cls.__module__, inspect.getsourcelines(cls)[1]))


def _section(target: Callable[..., Any], *, title: str | None = None) -> Iterator[str]:
    """A heading, where the class or function is, what it does, and the table of its settings."""
    described = parse(inspect.getdoc(target) or "", style=DocstringStyle.GOOGLE)
    yield f"### {title or target.__name__}\n"
    yield f"`{_path(target)}`\n"
    for text in (described.short_description, described.long_description):
        if text:
            yield _prose(text) + "\n"
    meanings = _meanings(target)
    rows = []
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.annotation is not inspect.Parameter.empty and not name.startswith("_"):
            kind = _type(parameter.annotation, target)
            rows.append((name, kind, _default(parameter.default), meanings.get(name, "")))
    yield from _table(rows)


def _meanings(target: Callable[..., Any]) -> dict[str, str]:
    """What the docstrings of a function, or of a class and its bases, say of each parameter."""
    meanings: dict[str, str] = {}
    for owner in target.__mro__ if isinstance(target, type) else (target,):
        if not owner.__module__.startswith("bsa_lightning."):
            continue
        for parameter in parse(owner.__doc__ or "", style=DocstringStyle.GOOGLE).params:
            meanings.setdefault(parameter.arg_name, parameter.description or "")
    return meanings


def _run_options() -> list[tuple[str, str, str, str]]:
    """What this package adds to Lightning's command line."""
    parser = LightningArgumentParser()
    before = set(parser._actions)
    Command.add_arguments_to_parser(cast("Command", None), parser)  # which it does not need
    rows = []
    for action in parser._actions:
        if action in before or action.dest.startswith("scoring"):
            continue
        kind = getattr(action, "_typehint", None) or action.type or bool
        default = inspect.Parameter.empty if action.required else action.default
        rows.append((f"--{action.dest}", _type(kind, Command), _default(default), action.help or ""))
    return [*rows, ("--scoring.*", "", "", "the settings of [ScoringSettings](#scoringsettings)")]


def _table(rows: Sequence[tuple[str, str, str, str]]) -> Iterator[str]:
    if not rows:
        return
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, kind, default, meaning in rows:
        yield f"| `{name}` | {kind} | {default} | {_prose(meaning).replace('|', chr(92) + '|')} |"
    yield ""


def _path(target: Callable[..., Any]) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def _type(annotation: object, target: Callable[..., Any]) -> str:
    """A type as Markdown: alternatives joined by "or", names of literals replaced by their values."""
    if not isinstance(annotation, str):
        annotation = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    names = vars(sys.modules[target.__module__])
    kinds: list[str] = []
    for part in annotation.replace("typing.", "").split(" | "):
        alias = names.get(part, part) if part.isidentifier() else part
        literal = re.fullmatch(r"(?:typing\.)?Literal\[(.*)\]", str(alias))
        kinds += literal[1].split(", ") if literal else [part]
    return " or ".join(f"`{kind.strip()}`" for kind in kinds)


def _default(value: object) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    if isinstance(value, type):
        parent = value.__module__.rpartition(".")[0]  # torch.optim.Adam, not torch.optim.adam.Adam
        is_public = getattr(importlib.import_module(parent), value.__name__, None) is value
        return f"`{parent if is_public else value.__module__}.{value.__name__}`"
    return f"`{str(value) if isinstance(value, Path) else repr(value)}`"


def _prose(text: str) -> str:
    """A docstring's text as Markdown: one line a paragraph, roles and double backticks as single ones."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    text = re.sub(r"(?<![`\w])(\w+_\w+\([^)]*\))(?!`)", r"`\1`", text)
    text = re.sub(r"(`[^`]*`)|\*", lambda found: found[1] or r"\*", text)
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "docs.tools.help_texts"], check=True)  # in a process that has imported less
