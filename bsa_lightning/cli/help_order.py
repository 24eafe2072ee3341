"""The help of Lightning's commands: what this package adds comes first, with examples."""

from __future__ import annotations

from argparse import ArgumentParser

from jsonargparse import DefaultHelpFormatter

_EXAMPLES = {
    "fit": (
        "Trains a whole ladder of distillation rounds, or a teacher.",
        ("--config demo", "the built-in recipe, into runs/demo"),
        ("--config demo --config weighting/min-snr --run runs/min-snr --model.plan.updates 300", ""),
        ("--config runs/demo/config.yaml --ckpt_path last", "go on where it was stopped"),
        ("--config tango-audiocaps --config trainer/gpu-80gb --plan", "what an update costs"),
    ),
    "validate": (
        "Prints the distillation error and the trajectory error of a run on its validation clips.",
        ("--config runs/demo/config.yaml", ""),
    ),
    "test": (
        "Scores the teacher and the students of a run at every step count, with repeats and intervals.",
        ("--config runs/demo/config.yaml", "the table is printed; lightning report makes a page"),
        ("--config runs/demo/config.yaml --scoring.seeds '[0,1,2]'", ""),
    ),
    "predict": (
        "Makes a wav file of each caption of a file, over all devices.",
        ("--config predict --data.file captions.txt --run runs/sounds", ""),
        ("--config predict --data.file captions.txt --model.model runs/demo/rounds/3-1steps --run runs/sounds", ""),
    ),
}
"""The description of each command, then examples with a remark."""
_CLASSES = (
    ("--model.help ProgressiveDistillation", "the settings of a class, with their meanings"),
    ("--config demo --model.weighting.help MinSNR", "of a part of it"),
    ("--scoring.clips.help Soundscapes", ""),
    ("--trainer.callbacks.help EarlyStopping", ""),
    ("--config demo --print_config", "the whole configuration, as YAML"),
)
_LAST = "Customize every aspect of training via flags"
"""The title of the settings of Lightning's trainer."""


class AsWritten(DefaultHelpFormatter):
    """Keeps the lines of a description that has several."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else str(super()._fill_text(text, width, indent))


def put_ours_first(parser: ArgumentParser, command: str) -> None:
    """Changes the help of a command: a short usage, examples, and the settings of Lightning's trainer last.

    Args:
        parser: the parser of the command.
        command: "fit", "validate", "test" or "predict".
    """
    title, *examples = _EXAMPLES[command]
    parser.usage = f"lightning {command} --config RECIPE [--config PIECE ...] [--run FOLDER] [--NAME VALUE ...]"
    parser.description = "\n".join(
        [
            str(title),
            "\nexamples:",
            *_lines(command, examples),
            "\nthe help of a class lists its settings:",
            *_lines(command, _CLASSES if command == "fit" else _CLASSES[-2:-1]),
            "\n`lightning recipes` lists the recipes. Write options in full; if one is repeated, the last one counts.",
        ]
    )
    # Only the help goes by the order of the groups.
    parser._action_groups.sort(key=lambda group: str(group.title or "").startswith(_LAST))


def _lines(command: str, examples: object) -> list[str]:
    assert isinstance(examples, list | tuple)
    return [f"  lightning {command} {words}" + (f"   # {remark}" if remark else "") for words, remark in examples]
