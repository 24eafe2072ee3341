"""``lightning generate "A dog barks" --model FOLDER``: one or more captions to wav files."""

from __future__ import annotations

from pathlib import Path

from bsa_lightning.commands.call import call
from bsa_lightning.errors import UserError


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

    Args:
        captions: what to hear.
        model: folder of a model or student, or "tiny" for the built-in teacher.
        steps: of the sampler; none takes what the model was made for.
        guidance: of the sampler; none takes what the model was made for.
        seed: of the noise; the same seed gives the same sound.
        num_samples: clips a caption.
        out: folder for the wav files.
    """
    if num_samples < 1:
        raise UserError(f"num_samples is {num_samples}, but must be at least 1")
    if not all(caption.strip() for caption in captions):
        raise UserError("a caption is empty; say what is to be heard")
    import torch

    from bsa_lightning.commands.sounds import Sounds

    sounds = Sounds(model, num_steps=steps, guidance_scale=guidance, seed=seed)
    sounds.to("cuda" if torch.cuda.is_available() else "cpu")
    repeated = [caption for caption in captions for _ in range(num_samples)]
    for first in range(0, len(repeated), _BATCH_SIZE):
        batch = repeated[first : first + _BATCH_SIZE]
        for path in sounds.write(out, batch, range(first, first + len(batch))):
            print(path)


_BATCH_SIZE = 16
