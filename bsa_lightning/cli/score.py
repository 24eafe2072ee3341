"""``lightning score REFERENCE_DIR GENERATED_DIR``: the metrics of a run, for any two folders of audio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bsa_lightning.cli import classes
from bsa_lightning.cli.call import call, split
from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.base import Embedding


def run(words: list[str]) -> None:
    """Runs the command."""
    classes.register()
    if not any(word.partition("=")[0] == "--model" for word in words):
        call(score, words, positional=True)
        return
    from bsa_lightning.cli.score_model import refuse_folders, score_model

    plain, options = split(words[1:])
    refuse_folders(plain)
    call(score_model, [words[0], *options])


def score(
    reference: Path,
    generated: Path,
    embeddings: Sequence[Embedding] = (),
    captions: Path | None = None,
    at_infinity: bool = False,
    kadtk: bool = False,
    cache: Path | None = None,
    out: Path | None = None,
) -> None:
    """Scores one folder of sound against another, and prints a card of the scores.

    Distances compare all files of both folders. Divergences compare pairs, which are files of the same name without
    suffix. Hidden files, files that are not audio, and files in subfolders are ignored; they are counted on the card,
    as are files without a pair. Sound keeps its own length and level; how it is converted to the input of an embedding
    is set by the embedding's reading: Plain, AsAudioldmEval, AsPublishedTango or AsPublishedTangoFAD.

    With ``--model FOLDER --clips CLIPS``, and no folders of sound, a model or student is scored by itself;
    ``lightning score --model --help`` lists the options of that.

    Args:
        reference: the folder of real sound.
        generated: the folder of a system's sound.
        embeddings: the embeddings to score with, such as VGGish or PANN with their files of weights; an empty list is
            LogMelStatistics. A file of another name than the published one is taken for weights of your own, unchecked.
        captions: a JSON file with an object from file names, without suffix, to captions, which CLAP scores and
            obedience need.
        at_infinity: whether to extrapolate Frechet distances to infinitely many generated clips as well, with the same
            reference. Left out if there are fewer than four clips, or eight rows, for each dimension of an embedding.
        kadtk: whether to compute kernel distances as the package kadtk does, too: over all pairs of rows, with the
            bandwidth of the generated side.
        cache: the folder that keeps the rows of the reference; ``None`` keeps nothing.
        out: the JSON file for the card; ``None`` only prints it.
    """
    import json

    import torch

    from bsa_lightning.cli.score_model import checked_out
    from bsa_lightning.common.files import refuse_file, write_json
    from bsa_lightning.evaluation.folders import score_folders

    out = checked_out(out)
    if cache is not None:
        refuse_file(cache, setting="cache")
        if Path(cache).resolve() in (Path(reference).resolve(), Path(generated).resolve()):
            raise UserError(f"cache is {cache}, which holds the sound that is scored; name another folder")
    card = score_folders(
        reference,
        generated,
        embeddings=embeddings,
        captions=captions,
        at_infinity=at_infinity,
        kadtk=kadtk,
        cache=cache,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    if out is not None:
        write_json(out, card)
    print(json.dumps(card, indent=2))
