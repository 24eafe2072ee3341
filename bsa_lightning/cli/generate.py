"""``lightning generate "A dog barks" --model FOLDER``: one or more captions to wav files."""

from __future__ import annotations

import os
from pathlib import Path

from bsa_lightning.cli.call import call
from bsa_lightning.cli.collected import Mistakes
from bsa_lightning.cli.run_names import model_of
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import refuse_file
from bsa_lightning.common.lists import plain_text
from bsa_lightning.common.ranges import check_number, check_seed


def run(words: list[str]) -> None:
    """Runs the command."""
    call(generate, words, several="captions")


def generate(
    captions: list[str],
    model: str = "tiny",
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    num_samples: int = 1,
    out: Path = Path("generated"),
) -> None:
    """Makes sound from captions and writes wav files.

    The built-in teacher and its students know ten kinds of sound from recordings (a dog barks, rain falls, waves crash,
    a baby cries, a clock ticks, a person sneezes, a helicopter flies, a chainsaw cuts wood, a rooster crows, a fire
    crackles), and soundscapes, which are described in these words alone: a, an, and, beep(s), bell(s), buzz(es), by,
    chirp(s), click(s), engine, falling, followed, four, high, hum, knock(s), long, low, over, quick, rain, rising,
    short, slow, then, three, two, wind, with. For example: "A dog barks", "Three short high beeps over a low hum",
    "Wind, with a rising chirp".

    Args:
        captions: the captions.
        model: the folder of a model, of a student, or of a run (which stands for its last student), or "tiny" for the
            built-in teacher.
        steps: the number of steps of the sampler, at least 1; ``None`` takes what the model was made for.
        guidance: the guidance scale, at least 0, where 1 is no guidance; ``None`` takes what the model was made for.
        seed: the seed of the noise, at least 0; the same seed gives the same sound.
        num_samples: the number of clips of each caption, from 1 to 10000.
        out: the folder for the wav files; those of an earlier call are replaced.
    """
    mistakes = Mistakes(())
    mistakes.check(lambda: check_number("num_samples", num_samples, whole=True, at_least=1, at_most=10_000), None)
    if steps is not None:
        mistakes.check(lambda: check_number("steps", steps, whole=True, at_least=1), None)
    if guidance is not None:
        mistakes.check(lambda: check_number("guidance", guidance, at_least=0), None)
    mistakes.check(lambda: check_seed("seed", seed), None)
    mistakes.check(lambda: refuse_file(out, setting="out"), None)
    mistakes.refuse()
    if not all(caption.strip() for caption in captions):
        raise UserError("a caption is empty; say what is to be heard")
    for caption in captions:
        plain_text(caption, where="the command line", what="caption")
        if (Path(caption).suffix or "/" in caption) and os.path.isfile(caption):  # noqa: PTH113 - of any length
            raise UserError(
                f"{caption} is a file, but generate takes captions themselves; for a file of captions use lightning"
                f" predict --config predict --data.file {caption} --run runs/sounds"
            )
    model = str(model_of(model))
    import torch

    from bsa_lightning.generation.wav_writer import WavWriter
    from bsa_lightning.models.vocabulary import warn_of_unknown_words

    repeated = [caption for caption in captions for _ in range(num_samples)]
    WavWriter.paths(out, repeated, range(len(repeated)))
    warn_of_unknown_words(model, captions)
    sounds = WavWriter(model, num_steps=steps, guidance_scale=guidance, seed=seed)
    sounds.to("cuda" if torch.cuda.is_available() else "cpu")
    for first in range(0, len(repeated), _BATCH_SIZE):
        batch = repeated[first : first + _BATCH_SIZE]
        for path in sounds.write(out, batch, range(first, first + len(batch))):
            print(path)


_BATCH_SIZE = 16
