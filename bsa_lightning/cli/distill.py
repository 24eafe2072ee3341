"""``lightning distill MODEL --captions FILE --steps 200 25 --out RUN``: a student from a model and captions alone."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from bsa_lightning.cli import classes
from bsa_lightning.cli.call import call, split
from bsa_lightning.cli.collected import Mistakes
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number, check_seed
from bsa_lightning.diffusion.weighting import Weighting
from bsa_lightning.distillation.guidance_modes import GuidanceMode


def run(words: list[str]) -> None:
    """Runs the command."""
    classes.register()
    plain, options = split(_one_value(words[1:]))
    if len(plain) > 1:
        raise UserError(f"{' '.join(plain)} are several words, but one model is distilled; name its folder alone")
    call(distill, [words[0], *(["--model", plain[0]] if plain else []), *options])


def distill(
    model: str,
    captions: Path,
    steps: tuple[int, int],
    out: Path,
    updates: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weighting: Weighting | None = None,
    guidance: GuidanceMode | None = None,
    latents_per_caption: int | None = None,
    seed: int = 0,
    devices: int | None = None,
    settings: dict[str, Any] | None = None,
) -> None:
    """Distils a model with captions alone, and scores, exports and reports its students.

    For example: ``lightning distill tiny --captions captions.txt --steps 8 1 --out runs/mine``.

    The teacher samples the latents that its students are trained on, with its own guidance, so that no recorded sound
    is needed. A tenth of the captions (1 to 128) is held out: scores compare the students with what the teacher makes
    of these in its full number of steps, as distributions of sound (FD, KAD) and from the same noise (trajectory
    error). At the end the table is printed; OUT/student is a complete model with a card, and OUT/report/index.html a
    page to listen to.

    The same command goes on where it was stopped. OUT/config.yaml is the configuration, which ``lightning fit`` takes
    as well. Latents are kept in the user's cache folder, where other runs of the same captions find them; they do not
    depend on the seed, so that runs can be compared.

    The defaults are for the built-in teacher on two CPU cores. For a large model on a GPU, the numbers of updates and
    captions matter most: several thousand updates for each round, with several thousand captions, and a batch as large
    as fits in memory.

    Args:
        model: the model to distil: a folder, a hub id (owner/name), or "tiny" for the built-in teacher; it may stand
            first, without --model.
        captions: a text file with a caption on each line, a CSV file with a column caption, or JSON lines with
            captions.
        steps: the number of steps of the teacher and of the last student, as two numbers; the first is a power of two
            times the second, since each round halves the number of steps.
        out: the folder of the run.
        updates: the number of updates of each round, at least 1; ``None`` is 60 on a CPU and 1000 on a GPU.
        batch_size: the number of clips of an update on each device; ``None`` is 16.
        learning_rate: the learning rate of Adam at the start of each round; ``None`` is 1e-4 for the built-in teacher
            and 3e-5 for others.
        weighting: the weighting of the loss, such as MinSNR; ``None`` is BSA with gamma = 5.
        guidance: where guidance goes (Baked, Embedded, Outside) with its scale, with which the latents are sampled,
            too; ``None`` bakes in the scale that the model is made for.
        latents_per_caption: the number of latents that the teacher samples of each caption; ``None`` is as many as make
            256 latents.
        seed: the seed of order, noise, times and caption dropout, at least 0.
        devices: the number of devices; ``None`` is all GPUs, or one process on the CPU.
        settings: further settings of lightning fit by dotted name, such as '{trainer.precision: 32-true}'.
    """
    from bsa_lightning.cli.captions_alone import CaptionsAlone
    from bsa_lightning.data.teacher_samples import distinct_captions
    from bsa_lightning.distillation.rounds import Plan

    mistakes = Mistakes(())
    mistakes.check(lambda: check_seed("seed", seed), None)
    mistakes.check(lambda: Plan(*steps, updates=1 if updates is None else updates), None)
    mistakes.check(lambda: distinct_captions(captions), None)
    limits = {"batch_size": batch_size, "latents_per_caption": latents_per_caption, "devices": devices}
    for name, value in limits.items():
        if value is not None:
            mistakes.check(functools.partial(check_number, name, value, whole=True, at_least=1), None)
    if learning_rate is not None:
        mistakes.check(lambda: check_number("learning_rate", learning_rate, above=0), None)
    mistakes.refuse()
    named = {
        "data.batch_size": batch_size,
        "model.optimizer.init_args.lr": learning_rate,
        "trainer.devices": devices,
    }
    _refuse_twice({**named, "model.plan.updates": updates}, settings or {})
    further = {name: value for name, value in named.items() if value is not None} | (settings or {})
    way = CaptionsAlone(
        model,
        captions,
        out,
        steps,
        updates=updates,
        weighting=weighting,
        guidance=guidance,
        latents_per_caption=latents_per_caption,
        seed=seed,
        settings=further,
    )
    was_finished = way.is_finished
    student = way.run()
    if was_finished:
        print(f"{out} was finished before, and is as it was")
    print((out / "report" / "table.md").read_text(encoding="utf-8"))
    print(f"page to listen to: {out / 'report' / 'index.html'}")
    print(f"student: {student}, which opens with\n\n{_usage(student)}")


def _refuse_twice(options: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuses a setting that an option of the command and ``settings`` give differently.

    Raises:
        UserError: if there is one.
    """
    for name, value in settings.items():
        ours = options.get(name.replace("model.init_args", "model").replace("data.init_args", "data"))
        if ours is not None and ours != value:
            raise UserError(
                f"settings has {name} = {value}, for which the command has an option of its own that says {ours}; give"
                " one of the two"
            )


def _usage(student: Path) -> str:
    """Returns the Python on the model card of an exported student, with the path of its folder."""
    found = re.search(r"```python\n(.*?)```", (student / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = found[1].strip().replace("path/to/this/folder", str(student)).splitlines() if found else []
    return "\n".join(f"    {line}".rstrip() for line in lines)


def _one_value(words: list[str]) -> list[str]:
    """Returns the words with ``--steps 200 25`` as one word, since an option has one value elsewhere."""
    joined: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--steps":
            numbers = [rest.pop(0) for _ in range(2) if rest and not rest[0].startswith("--")]
            word = f"--steps=[{', '.join(numbers)}]" if len(numbers) == 2 else " ".join(["--steps", *numbers])
            if len(numbers) < 2:
                raise UserError(
                    f"steps is {' '.join(numbers) or 'empty'}, but must be two numbers, such as --steps 200 25"
                )
        joined.append(word)
    return joined
