"""``lightning score REFERENCE_DIR GENERATED_DIR``: the metrics of a run, for any two folders of audio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bsa_lightning.cli import classes
from bsa_lightning.cli.call import call
from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.base import Embedding


def run(words: list[str]) -> None:
    """Runs the command."""
    classes.register()
    call(score, words, positional=True)


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

    Distances are of all files. Files of equal names, whatever their format, are taken for the same sound or caption:
    divergences are of such pairs alone. Files in folders below the two, hidden ones and those that are no audio are
    passed over, and counted on the card, as are files without a pair. Every sound is heard at its own length and level,
    as the reading of an embedding says: Plain, AsAudioldmEval, AsPublishedTango or AsPublishedTangoFAD.

    Args:
        reference: folder of real sound.
        generated: folder of a system's sound.
        embeddings: such as LogMelStatistics, which is used where none is named, or VGGish and PANN with their files of
            weights; a file under another name than the published one is taken for weights of your own, unchecked.
        captions: a JSON object of file names, without suffix, to captions; needed for CLAP scores and for
            obedience.
        at_infinity: also extrapolate Frechet distances to infinitely many generated clips; the reference stays.
            Left out where there are fewer than four clips, or eight rows, for each dimension of an embedding.
        kadtk: also compute kernel distances as the package kadtk does: over all pairs of rows, with the generated
            side's bandwidth.
        cache: folder that keeps the rows of the reference; without it they are embedded anew.
        out: JSON file for the card.
    """
    import json

    import torch

    from bsa_lightning.common.files import refuse_file, refuse_folder, write_json
    from bsa_lightning.evaluation.folders import score_folders

    if out is not None:
        out = Path(out).resolve()  # a link goes on to lead where it leads
        refuse_folder(out, setting="out")
        refuse_file(out.parent, setting="out")
        if out.exists() and not _is_card(out):
            raise UserError(f"out is {out}, which is there and is no card of scores; name another file")
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


def _is_card(path: Path) -> bool:
    """Whether a file is one that this command wrote."""
    from bsa_lightning.common.files import read_json

    try:
        return path.is_file() and {"scores", "evaluator"} <= read_json(path).keys()
    except UserError:
        return False
